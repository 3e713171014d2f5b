"use strict";
// All that comes from a log is put into the page as text (h() and textContent); nothing is ever read as HTML.

const byId = (id) => document.getElementById(id);
const csrf = document.querySelector('meta[name="csrf"]').content;
const WORDS = { pass: "pass", fail: "fail", unscored: "unscored", not_applicable: "not applicable", cannot_tell: "cannot tell" };
const page = {
  state: null, shown: [], at: null, current: null, choice: null, reviewer: localStorage.getItem("cm2-reviewer") || "",
  kept: new Set(), // decided since the filters were set: they stay in the list, so that one can go back
  busy: 0, // while a case is fetched or saved no key decides: it would be about another case than the eye sees
};

function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  for (const child of children.flat()) if (child != null) element.append(child);
  return element;
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json", "x-cm2-csrf": csrf },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is cm2 audit serve still running?");
  }
  if (answer.status === 401 || answer.status === 403) throw new Error("this page is no longer known to the server: open the address that cm2 audit serve printed");
  const value = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) {
    const error = new Error(value.error);
    error.conflict = answer.status === 409;
    throw error;
  }
  return value;
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

// ---- the queue

async function load() {
  page.state = await ask(`/api/state?reviewer=${encodeURIComponent(page.reviewer)}`);
  const { state } = page;
  byId("source").textContent = `${state.name} · judged by ${state.judges.join(", ")}`;
  byId("who").textContent = page.reviewer || "Your name?";
  fill("f-duty", [["", "all"], ...[...new Set(state.cases.map((one) => one.duty))].sort().map((name) => [name, name])]);
  fill("f-kind", [["", "all"], ...[...new Set(state.cases.map((one) => one.kind))].map((kind) => [kind, WORDS[kind]])]);
  fill("f-stratum", [["", "all"], ...Object.entries(state.strata)]);
  filter();
}

function fill(id, options) {
  const select = byId(id);
  const kept = select.value;
  select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  select.value = options.some(([value]) => String(value) === kept) ? kept : "";
}

function filter() {
  const [duty, kind, stratum, done] = ["f-duty", "f-kind", "f-stratum", "f-done"].map((id) => byId(id).value);
  const wanted = {
    open: (one) => !one.mine && one.reviews < one.wanted,
    second: (one) => !one.mine && one.reviews > 0 && one.reviews < one.wanted,
    mine: (one) => one.mine,
    all: () => true,
  }[done];
  page.shown = page.state.cases.filter(
    (one) => (!duty || one.duty === duty) && (!kind || one.kind === kind) && (!stratum || String(one.stratum) === stratum) && (wanted(one) || page.kept.has(one.id) || one.id === page.at));
  const cases = page.state.cases;
  const reviewed = cases.filter((one) => one.reviews > 0).length;
  const mine = cases.filter((one) => one.mine).length;
  byId("bar").max = cases.length;
  byId("bar").value = reviewed;
  byId("done").textContent = `${reviewed} of ${cases.length} reviewed, ${mine} by you`;
  byId("count").textContent = `${page.shown.length} ${page.shown.length === 1 ? "case" : "cases"}`;
  list();
}

function list() {
  const blind = byId("blind").checked;
  byId("list").replaceChildren(...page.shown.map((one) => {
    const verdict = blind && !one.mine ? "" : WORDS[one.kind];
    const mark = one.mine ? (one.mine === one.kind ? "✓" : one.mine === "cannot_tell" ? "?" : "≠") : "";
    const what = h("span", { class: "what" }, h("span", null, one.duty), h("span", null, h("span", { class: verdict && one.kind }, verdict), mark && ` ${mark}`));
    return h("li", null, h("button", { type: "button", "data-case": one.id, "aria-current": String(one.id === page.at), on: { click: () => open(one.id) } }, what, h("span", { class: "ask" }, one.about)));
  }));
  const current = byId("list").querySelector('[aria-current="true"]');
  if (current) current.scrollIntoView({ block: "nearest" });
}

async function open(id) {
  page.busy += 1;
  try {
    page.current = await ask(`/api/cases/${id}?reviewer=${encodeURIComponent(page.reviewer)}`);
  } catch (error) {
    return notice(error.message);
  } finally {
    page.busy -= 1;
  }
  page.at = id;
  page.choice = page.current.mine ? page.current.mine.decision : null;
  show("cases");
  talk();
  decide();
  list();
}

function move(by) {
  if (!page.shown.length) return;
  const at = page.shown.findIndex((one) => one.id === page.at);
  const next = at < 0 ? (by > 0 ? 0 : page.shown.length - 1) : at + by;
  if (page.shown[next]) open(page.shown[next].id);
}

// ---- the dialogue

function part(one, hidden) {
  const label = { call: "calls", response: "tool answers", reply: "agent", thinking: "thinks" }[one.kind];
  const origin = one.origin && one.origin !== "recorded" ? ` (${one.origin})` : "";
  const pieces = one.pieces.map(([text, marked]) => (marked && !hidden ? h("mark", null, text) : text));
  const rest = one.left_out ? h("span", { class: "muted" }, ` … ${one.left_out} more characters`) : null;
  return h("div", { class: `part ${one.kind}` }, h("b", null, label + origin), h("div", null, pieces, rest));
}

function talk() {
  const one = page.current;
  const hidden = hides();
  const system = one.system ? h("details", { class: "card" }, h("summary", null, "System prompt"), h("pre", null, one.system)) : null;
  const opening = one.opening.length ? h("div", { class: "turn" }, one.opening.flat().map((each) => part(each, hidden))) : null;
  const turns = one.turns.map((turn) => {
    const here = turn.number === one.turn;
    const head = h("h3", null, h("span", null, `Turn ${turn.number}`), here ? h("span", null, "the duty is about this turn") : null);
    const user = h("div", { class: "part user" }, h("b", null, "user"), h("div", null, turn.user));
    return h("article", { class: here ? "turn here" : "turn" }, head, user, turn.steps.flat().map((each) => part(each, hidden)));
  });
  byId("talk").replaceChildren(h("p", { class: "muted small" }, `Dialogue ${one.dialogue}`), ...[system, opening, ...turns].filter(Boolean));
  const target = byId("talk").querySelector("mark") || byId("talk").querySelector(".here");
  byId("talk").scrollTop = 0;
  if (target && matchMedia("(min-width: 1101px)").matches) target.scrollIntoView({ block: "center" });
}

const hides = () => byId("blind").checked && !page.current.mine;

// ---- the duty and the decision

function decide() {
  const one = page.current;
  const hidden = hides();
  const facts = [one.severity, one.whole ? "whole dialogue" : `turn ${one.turn}`, one.owner && `owner ${one.owner}`].filter(Boolean);
  const about = h("div", { class: "card" },
    h("div", { class: "facts" }, h("span", null, one.duty), ...facts.map((text) => h("span", null, text))),
    h("h2", null, one.question),
    one.pass_condition !== one.question ? h("p", null, one.pass_condition) : null,
    one.edited || one.status !== "open" ? h("p", { class: "small" }, `${one.edited ? "It was edited since; this is the wording that was judged. " : ""}${one.status === "open" ? "" : `It is ${one.status}.`}`) : null,
    one.applies_when ? h("details", null, h("summary", null, "Applies when"), h("pre", null, one.applies_when)) : null,
    one.check ? h("details", null, h("summary", null, "Check"), h("pre", null, one.check)) : null,
    one.failure_examples.length ? h("details", null, h("summary", null, "Examples of failure"), h("ul", null, one.failure_examples.map((text) => h("li", null, text)))) : null);
  const votes = one.votes.length ? ` · votes: ${one.votes.map((vote) => (vote === null ? "–" : vote ? "yes" : "no")).join(", ")}` : "";
  const said = hidden
    ? h("p", { class: "muted" }, "The verdict is hidden until you decide.")
    : h("div", null, h("p", null, "The judge says ", h("span", { class: `verdict ${one.kind}` }, WORDS[one.kind])), h("p", { class: "muted small" }, one.reason),
      h("p", { class: "muted small" }, `${one.judge}${votes}`),
      one.unplaced.length ? h("p", { class: "small" }, "Quoted, but not to be found in its place: ", one.unplaced.join(" … ")) : null);
  byId("duty").replaceChildren(about, h("div", { class: "card" }, said, choices(hidden)), reviews(), h("p", { class: "small" },
    h("button", { type: "button", id: "to-duty", on: { click: () => editDuty(one.subject) } }, "Edit this duty", h("kbd", null, "e"))));
}

function options(hidden) {
  const one = page.current;
  const direct = [["pass", "It holds", "p"], ["fail", "It does not hold", "f"], ["not_applicable", "Does not apply", "n"], ["cannot_tell", "Cannot tell", "u"]];
  if (hidden || one.kind === "unscored" || one.kind === "not_applicable") return direct;
  const other = one.kind === "pass" ? "fail" : "pass";
  return [[one.kind, `Accept: ${WORDS[one.kind]}`, "a"], [other, `Override: ${WORDS[other]}`, "o"], ["not_applicable", "Does not apply", "n"], ["cannot_tell", "Cannot tell", "u"]];
}

function choices(hidden) {
  const mine = page.current.mine;
  const buttons = options(hidden).map(([decision, text, key]) =>
    h("button", { type: "button", "data-key": key, "data-decision": decision, "aria-pressed": String(page.choice === decision), on: { click: () => choose(decision) } }, text, h("kbd", null, key)));
  const reason = h("textarea", { id: "reason", rows: 2, placeholder: "Reason (needed for an override)", "aria-label": "Reason" });
  reason.value = mine ? mine.reason : "";
  const save = h("button", { type: "button", class: "main", id: "save", disabled: page.choice === null, on: { click: () => save_() } }, mine ? "Save again" : "Save", h("kbd", null, "Ctrl ⏎"));
  return h("div", null, h("div", { class: "choices" }, buttons), reason, h("p", { id: "problem", class: "problem small", role: "alert" }),
    h("div", { class: "row" }, h("span", { class: "muted small" }, mine ? `You said: ${WORDS[mine.decision]}${mine.reason && `: ${mine.reason}`}` : ""), save));
}

function reviews() {
  const { others, wanted } = page.current;
  if (typeof others === "number") return others ? h("p", { class: "muted small" }, `${others} reviewed it before you; what they said is shown once you have decided.`) : h("p", { class: "muted small" }, wanted > 1 ? "This case is for two people." : "");
  return h("div", { class: "small" }, others.map((one) => h("p", null, `${one.reviewer}: `, h("span", { class: one.decision }, WORDS[one.decision]), one.reason ? `: ${one.reason}` : "")));
}

function needsReason(decision) {
  const one = page.current;
  return !hides() && one.kind !== "unscored" && decision !== one.kind && decision !== "cannot_tell";
}

async function choose(decision) {
  if (page.busy) return;
  page.choice = decision;
  for (const button of byId("duty").querySelectorAll("[data-decision]")) button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
  byId("save").disabled = false;
  if (needsReason(decision) && !byId("reason").value.trim()) return byId("reason").focus();
  if (!page.current.mine) await save_();
}

async function save_() {
  const one = page.current;
  const problem = byId("problem");
  if (page.choice === null || page.busy) return;
  if (!page.reviewer && !(await askName())) return;
  if (needsReason(page.choice) && !byId("reason").value.trim()) {
    problem.textContent = "An override needs a reason: what did the judge get wrong?";
    return byId("reason").focus();
  }
  const body = { case: one.id, reviewer: page.reviewer, decision: page.choice, reason: byId("reason").value, blind: hides(), version: one.mine ? one.mine.version : 0 };
  page.busy += 1;
  try {
    await send(one, body);
  } finally {
    page.busy -= 1;
  }
}

async function send(one, body) {
  try {
    await ask("/api/review", body);
  } catch (error) {
    if (error.conflict) {  // show what is there now, and keep what was typed
      await load();
      await open(one.id);
      page.choice = body.decision;
      decide();
      byId("reason").value = body.reason;
    }
    byId("problem").textContent = error.message;
    return;
  }
  notice("");
  document.activeElement.blur();
  page.kept.add(one.id);
  const place = page.shown.findIndex((each) => each.id === one.id);
  const next = one.mine ? one : page.shown.slice(place + 1).find((each) => !each.mine) || one;
  await load();
  await open(next.id);
}

// ---- duties

function show(what) {
  byId("cases").hidden = what !== "cases";
  byId("duties").hidden = what !== "duties";
  byId("show-cases").setAttribute("aria-pressed", String(what === "cases"));
  byId("show-duties").setAttribute("aria-pressed", String(what === "duties"));
}

async function duties() {
  show("duties");
  await load();
  const { changes } = await ask("/api/log");
  const cards = page.state.duties.map((duty) => h("article", { class: duty.status === "retired" ? "card retired-duty" : "card", "data-duty": duty.key },
    h("div", { class: "row" }, h("h2", null, duty.name), h("span", null, duty.edited ? h("span", { class: "tag edited" }, "edited") : null, " ", duty.status !== "open" ? h("span", { class: `tag ${duty.status}` }, duty.status) : null)),
    h("p", null, duty.question),
    h("div", { class: "row" }, h("span", { class: "facts" }, duty.severity ? h("span", null, duty.severity) : null, h("span", null, duty.check ? "decided by a check" : "a model is asked")),
      h("span", { class: "row" },
        h("button", { type: "button", on: { click: () => editDuty(duty.key) } }, "Edit"),
        duty.status === "retired" ? h("button", { type: "button", on: { click: () => change(duty, "restore") } }, "Restore")
          : h("button", { type: "button", on: { click: () => change(duty, "retire") } }, "Retire"),
        duty.status === "open" ? h("button", { type: "button", on: { click: () => change(duty, "approve") } }, "Approve") : null))));
  const entries = changes.map((one) => h("li", null, `${one.at.slice(0, 16).replace("T", " ")} · ${one.reviewer} · ${one.action} · ${one.target}${one.reason ? `: ${one.reason}` : ""}`,
    one.action === "edit" ? h("details", null, h("summary", null, "before and after"), h("pre", null, JSON.stringify(one.before.spec, null, 1)), h("pre", null, JSON.stringify(one.after.spec, null, 1))) : null));
  byId("duties").replaceChildren(
    h("p", { class: "muted" }, "Changes stay in the audit, with name and reason, until they are exported as a new file. The source is not touched."),
    h("h1", null, "Duties"), ...cards,
    h("h1", null, "Changes"), entries.length ? h("ul", { class: "log" }, entries) : h("p", { class: "muted" }, "Nothing was changed yet."));
}

const find = (key) => page.state.duties.find((one) => one.key === key);

function change(duty, action) {
  const reason = h("textarea", { rows: 2, required: action !== "approve", id: "why" });
  form(`${action[0].toUpperCase()}${action.slice(1)} ${duty.name}`, [h("label", null, action === "approve" ? "Remark (optional)" : "Reason", reason)], action,
    () => ({ key: duty.key, action, version: duty.version, reason: reason.value, fields: {} }));
}

function editDuty(key) {
  const duty = find(key);
  if (!duty) return notice("this duty cannot be edited here");
  const names = [["question", "Question"], ["pass_condition", "Passes when"], ["check", "Check (YAML; empty: a model is asked)"], ["applies_when", "Applies when (YAML; empty: always)"]];
  if (duty.kind === "duty") names.push(["note", "Note"]);
  const fields = {};
  const labels = names.map(([name, text]) => {
    fields[name] = h("textarea", { rows: 2, class: name === "check" || name === "applies_when" ? "code" : null, "data-field": name });
    fields[name].value = duty[name];
    return h("label", null, text, fields[name]);
  });
  if (duty.kind === "duty") {
    fields.severity = h("select", { "data-field": "severity" }, ["critical", "major", "minor"].map((value) => h("option", { value }, value)));
    fields.severity.value = duty.severity;
    labels.splice(2, 0, h("label", null, "Severity", fields.severity));
  }
  const reason = h("textarea", { rows: 2, required: true, id: "why" });
  form(`Edit ${duty.name}`, [...labels, h("label", null, "Reason for the change", reason)], "save", () => {
    const changed = Object.entries(fields).filter(([name, field]) => field.value !== duty[name]).map(([name, field]) => [name, field.value]);
    return { key, action: "edit", version: duty.version, reason: reason.value, fields: Object.fromEntries(changed) };
  });
}

function form(title, labels, verb, body) {
  const problem = h("p", { class: "problem small", role: "alert" });
  const send = async (event) => {
    event.preventDefault();
    if (!page.reviewer && !(await askName())) return;
    try {
      await ask("/api/duty", { reviewer: page.reviewer, ...body() });
    } catch (error) {
      problem.textContent = error.message + (error.conflict ? " Close this, and the duty is shown as it is now." : "");
      if (error.conflict) await load();
      return;
    }
    byId("dialog").close();
    await duties();
  };
  const buttons = h("div", { class: "row" }, h("button", { type: "button", on: { click: () => byId("dialog").close() } }, "Cancel"), h("button", { class: "main", type: "submit" }, verb[0].toUpperCase() + verb.slice(1)));
  dialog(h("h2", null, title), h("form", { on: { submit: send } }, ...labels, problem, buttons));
}

function dialog(...children) {
  byId("dialog").replaceChildren(...children);
  if (!byId("dialog").open) byId("dialog").showModal();
}

// ---- name and keys

function askName() {
  return new Promise((resolve) => {
    const asking = h("dialog", { id: "name-dialog" });
    const name = h("input", { type: "text", id: "name", maxlength: 80, required: true, autocomplete: "name" });
    name.value = page.reviewer;
    const send = (event) => {
      event.preventDefault();
      if (!name.value.trim()) return;
      page.reviewer = name.value.trim();
      localStorage.setItem("cm2-reviewer", page.reviewer);
      asking.close();
    };
    asking.append(h("h2", null, "Who reviews?"), h("form", { on: { submit: send } }, h("label", null, "Your name, as the record will show it", name), h("div", { class: "row" }, h("span"), h("button", { class: "main", type: "submit" }, "Go on"))));
    asking.addEventListener("close", () => { asking.remove(); byId("who").textContent = page.reviewer || "Your name?"; resolve(Boolean(page.reviewer)); });
    document.body.append(asking);
    asking.showModal();
  });
}

function help() {
  const keys = [["j / k", "next, previous case"], ["a", "accept the verdict"], ["o", "override it (with a reason)"], ["p / f", "it holds, it does not (where no verdict is shown)"], ["n", "the duty does not apply"], ["u", "cannot tell"], ["r", "write a reason"], ["Ctrl ⏎", "save"], ["e", "edit this duty"], ["d / c", "duties, cases"], ["b", "hide verdicts until I decide"], ["Esc", "leave a field, close a dialog"]];
  dialog(h("h2", null, "Keys"), h("dl", null, keys.map(([key, text]) => [h("dt", null, key), h("dd", null, text)])), h("button", { type: "button", class: "main", on: { click: () => byId("dialog").close() } }, "Close"));
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("textarea, input[type='text'], select");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && typing.id === "reason") save_();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Enter" && page.current) save_();
    return;
  }
  const run = { j: () => move(1), k: () => move(-1), d: duties, c: () => show("cases"), "?": help,
    r: () => byId("reason") && byId("reason").focus(), e: () => page.current && editDuty(page.current.subject),
    b: () => byId("blind").click() }[event.key];
  const button = !byId("cases").hidden && byId("duty").querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (run) Promise.resolve(run()).catch((error) => notice(error.message));
  else if (button) button.click();
  else return;
  event.preventDefault();
});

for (const id of ["f-duty", "f-kind", "f-stratum", "f-done"]) byId(id).addEventListener("change", () => { page.kept.clear(); filter(); });
byId("blind").addEventListener("change", () => { list(); if (page.current) { talk(); decide(); } });
byId("show-cases").addEventListener("click", () => show("cases"));
byId("show-duties").addEventListener("click", () => duties().catch((error) => notice(error.message)));
byId("keys").addEventListener("click", help);
byId("dialog").addEventListener("close", () => {  // or the focus stays in a field that nobody sees, and keys do nothing
  if (byId("dialog").contains(document.activeElement)) document.activeElement.blur();
  byId("dialog").replaceChildren();
});
byId("who").addEventListener("click", async () => { await askName(); await load(); if (page.at !== null) await open(page.at); });

(async () => {
  if (matchMedia("(max-width: 720px)").matches) byId("filters").open = false;
  try {
    await load();
    if (!page.reviewer) { await askName(); await load(); }
    if (page.shown.length) await open(page.shown[0].id);
    else byId("talk").replaceChildren(h("p", { class: "muted" }, "Nothing is open for you. Change “Show” to see the others."));
  } catch (error) {
    notice(error.message);
  }
})();
