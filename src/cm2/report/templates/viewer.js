(() => {
  "use strict";
  // Everything of the data becomes text (textContent), nothing becomes markup, an address or a style.
  const $ = (id) => document.getElementById(id);
  const meta = JSON.parse($("meta").textContent);
  if (!$("list")) return;
  const ROW = 60, AHEAD = 6, KEPT = 12, ADDRESS = /^(index|part)-\d+$/;
  const SIGNS = { f: "✗", p: "✓", u: "?", n: "–" };
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Parts: from the page itself, or from scripts beside it that call cm2data.
  const address = (name) => {
    if (!ADDRESS.test(name)) throw new TypeError("no part of this report");
    return `${meta.folder}/${name}.js`;
  };
  const rules = meta.folder && window.trustedTypes
    ? window.trustedTypes.createPolicy("cm2", { createScriptURL: address }) : { createScriptURL: address };
  const waiting = new Map();
  const settle = (name, how, value) => {
    const found = waiting.get(name);
    waiting.delete(name);
    if (found) found[how](value);
  };
  Object.defineProperty(window, "cm2data", { value: (build, name, text) => {
    if (build === meta.build) settle(name, "resolve", JSON.parse(text));
    else settle(name, "reject", new Error(`${meta.folder} belongs to another report; write the report again`));
  } });
  const read = (name) => {
    if (!meta.folder) return Promise.resolve(JSON.parse($(name).textContent));
    return new Promise((resolve, reject) => {
      waiting.set(name, { resolve, reject });
      const script = document.createElement("script");
      script.onload = () => { script.remove(); settle(name, "reject", new Error(`${name}.js holds nothing`)); };
      script.onerror = () => { script.remove(); settle(name, "reject", new Error(`${decodeURIComponent(meta.folder)}/${name}.js is missing: keep the folder beside the page`)); };
      script.src = rules.createScriptURL(name);
      document.head.append(script);
    });
  };
  const parts = new Map();
  const part = (number) => {
    const name = `part-${number}`;
    const found = parts.get(name) || read(name);
    parts.delete(name);
    parts.set(name, found);
    found.catch(() => parts.delete(name));
    if (parts.size > KEPT) parts.delete(parts.keys().next().value);
    return found;
  };

  // The list: all entries, those that the filters leave, and the few rows that are on the screen.
  const [ID, ROLLOUT, LINE, SCORE, TURNS, PART, PLACE, COMBINATIONS, MODES, FAILED, OPENING, NUMBER] = Array(12).keys();
  const list = $("list"), rows = $("rows"), pane = $("dialogue"), viewer = list.parentElement;
  const filters = { duty: $("by-duty"), result: $("by-result"), judge: $("by-judge"), mode: $("by-mode"), order: $("by-order"), text: $("by-text") };
  const value = (name) => (filters[name] ? filters[name].value : "");
  let entries = [], shown = [], at = -1, open = null, complete = false;
  const wanted = () => {
    const [duty, result, judge] = [value("duty"), value("result"), value("judge")];
    const left = new Set();
    meta.combinations.forEach(([d, r, j], number) => {
      if ((duty === "" || d === +duty) && (result === "" || r === result) && (judge === "" || j === +judge)) left.add(number);
    });
    return duty + result + judge === "" ? null : left;
  };
  const filter = () => {
    const left = wanted(), mode = value("mode"), text = value("text").trim().toLowerCase();
    const before = at >= 0 ? shown[at] : null;
    shown = entries.filter((one) =>
      (!left || one[COMBINATIONS].some((number) => left.has(number))) &&
      (mode === "" || one[MODES].includes(+mode)) &&
      (text === "" || one[ID].toLowerCase().includes(text) || one[OPENING].toLowerCase().includes(text)));
    if (value("order") === "score") shown.sort((a, b) => (a[SCORE] ?? 2) - (b[SCORE] ?? 2) || a[NUMBER] - b[NUMBER]);
    if (value("order") === "failed") shown.sort((a, b) => b[FAILED] - a[FAILED] || a[NUMBER] - b[NUMBER]);
    at = before ? shown.indexOf(before) : -1;
    rows.style.height = `${shown.length * ROW}px`;
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${entries.length.toLocaleString("en")}${complete ? "" : " …"}`;
    pool.forEach((row) => { row.index = -1; });
    draw();
  };
  const pool = [];
  const row = () => {
    const element = make("div", "item");
    element.setAttribute("role", "option");
    const first = make("div", "first"), second = make("div", "second");
    const found = { element, index: -1, words: make("span", "words"), score: make("span", "score"), id: make("span", "id"), failed: make("span", "") };
    first.append(found.words, found.score);
    second.append(found.id, found.failed);
    element.append(first, second);
    element.addEventListener("click", () => select(found.index));
    rows.append(element);
    pool.push(found);
    return found;
  };
  const draw = () => {
    const start = Math.max(0, Math.floor(list.scrollTop / ROW) - AHEAD);
    const end = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + AHEAD);
    const need = Math.max(0, end - start);
    while (pool.length < need) row();
    const size = pool.length;
    for (let index = start; index < start + size; index++) {
      const one = pool[index % size];
      const entry = index < end ? shown[index] : undefined;
      one.element.hidden = !entry;
      if (!entry) { one.index = -1; one.element.removeAttribute("id"); continue; }
      one.element.setAttribute("aria-selected", String(index === at));
      if (one.index === index) continue;
      one.index = index;
      one.element.id = `row-${index}`;
      one.element.setAttribute("aria-setsize", String(shown.length));
      one.element.setAttribute("aria-posinset", String(index + 1));
      one.element.style.transform = `translateY(${index * ROW}px)`;
      one.words.textContent = entry[OPENING] || "(no message)";
      one.score.textContent = entry[SCORE] === null ? "–" : entry[SCORE].toFixed(2);
      one.id.textContent = entry[ID] + (entry[ROLLOUT] ? ` (${entry[ROLLOUT]})` : "");
      one.failed.textContent = entry[FAILED] ? `${entry[FAILED]} failed` : entry[SCORE] === null ? "not scored" : "passed";
      one.failed.className = entry[FAILED] ? "unmet" : entry[SCORE] === null ? "unscored" : "met";
    }
    if (at >= 0) list.setAttribute("aria-activedescendant", `row-${at}`);
    else list.removeAttribute("aria-activedescendant");
  };
  let frame = 0;
  list.addEventListener("scroll", () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); }); }, { passive: true });
  new ResizeObserver(draw).observe(list);

  const select = (index, focus) => {
    if (index < 0 || index >= shown.length) return;
    at = index;
    const top = index * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
    load(shown[index], focus);
  };
  let latest = 0;
  const load = async (entry, focus) => {
    const ticket = ++latest;
    viewer.classList.add("reading");
    try {
      const found = (await part(entry[PART]))[entry[PLACE]];
      if (ticket !== latest) return;
      show(found, entry);
      if (focus) pane.focus({ preventScroll: true });
      history.replaceState(null, "", `#dialogue-${entry[NUMBER]}`);
    } catch (error) {
      if (ticket === latest) pane.replaceChildren(back(), make("p", "empty", String(error.message || error)));
    }
  };

  // One dialogue: what was said and done, and beside it its verdicts.
  const back = () => {
    const button = make("button", "back", "‹ List");
    button.type = "button";
    button.addEventListener("click", () => { viewer.classList.remove("reading"); list.focus({ preventScroll: true }); });
    return button;
  };
  const pieces = (target, found, left) => {
    for (const piece of found) {
      if (typeof piece === "string") { target.append(piece); continue; }
      const mark = make("mark", "", piece[0]);
      mark.dataset.e = piece[1].join(" ");
      target.append(mark);
    }
    if (!found.length) target.append(make("span", "muted", "(empty)"));
    if (left) target.append(make("span", "muted", ` … ${left.toLocaleString("en")} more characters`));
    return target;
  };
  const KINDS = ["thinking", "call", "response", "reply"], ORIGINS = ["recorded", "replayed", "simulated", "error", "malformed"];
  const stepOf = (found, number, turn) => {
    const element = make("div", "step");
    element.dataset.at = `${turn} ${number}`;
    element.append(make("div", "at", `step ${number}`));
    for (const [kind, text, left, origin] of found) {
      const box = make("div", `part ${KINDS.includes(kind) ? kind : ""} ${ORIGINS.includes(origin) ? origin : ""}`);
      if (kind !== "reply") {
        const who = make("span", "who", kind);
        if (origin && origin !== "recorded") who.append(" ", make("em", "", origin));
        box.append(who);
      }
      box.append(pieces(make("div", "text"), text, left));
      element.append(box);
    }
    return element;
  };
  const show = (found, entry) => {
    const talk = make("div", "talk"), sheet = make("div", "sheet-list"), head = make("div", "pane-head");
    talk.tabIndex = 0;
    talk.setAttribute("aria-label", "What was said and done");
    sheet.setAttribute("aria-label", "Checklist");
    const counts = { f: 0, p: 0, u: 0, n: 0 };
    found.verdicts.forEach((one) => { counts[one.r] += 1; });
    const told = Object.entries(counts).filter(([, n]) => n).map(([r, n]) => `${n} ${meta.results[r]}`).join(" · ");
    const score = found.score === null ? "not scored" : `score ${found.score.toFixed(3)}`;
    head.append(back(), make("b", "", found.id + (found.rollout ? ` (${found.rollout})` : "")), make("span", "muted", `${score} · ${told}`), make("span", "space"));
    for (const [label, by, sign] of [["Previous", -1, "‹"], ["Next", 1, "›"]]) {
      const button = make("button");
      button.type = "button";
      button.setAttribute("aria-label", `${label} dialogue`);
      button.append(by < 0 ? sign : "", make("span", "", by < 0 ? ` ${label}` : `${label} `), by < 0 ? "" : sign);
      button.addEventListener("click", () => select(at + by));
      head.append(button);
    }
    if (found.system) {
      const box = make("details");
      box.append(make("summary", "muted", "system prompt"), pieces(make("div", "text"), [found.system[0]], found.system[1]));
      talk.append(box);
    }
    (found.opening || []).forEach((step, number) => talk.append(stepOf(step, number, "opening")));
    found.turns.forEach((turn, number) => {
      const user = make("div", "user");
      user.dataset.turn = String(number);
      user.append(make("span", "who", `turn ${number} · user`));
      pieces(user, turn.user[0] ? [turn.user[0]] : [], turn.user[1]);
      talk.append(user, ...turn.steps.map((step, s) => stepOf(step, s, number)));
      if (!turn.steps.length) talk.append(make("p", "muted", "no answer"));
    });
    const left = wanted(), mode = value("mode");
    const fits = (one) => (mode === "" || one.m === +mode) && (!left || left.has(meta.combinations.findIndex(([d, r, j]) => d === one.d && r === one.r && j === one.j)));
    if (found.source) sheet.append(make("p", "muted", found.source));
    const turns = [...new Set(found.verdicts.map((one) => one.t))].sort((a, b) => a - b);
    const verdicts = [];
    for (const turn of turns) {
      sheet.append(make("h4", "", turn < 0 ? "whole dialogue" : `turn ${turn}${turn < found.turns.length ? "" : ", not reached"}`));
      found.verdicts.forEach((one, number) => {
        if (one.t !== turn) return;
        const element = verdictOf(one, number);
        if ((left || mode !== "") && !fits(one)) element.classList.add("dim");
        verdicts.push({ one, number, element });
        sheet.append(element);
      });
    }
    if (!found.verdicts.length) sheet.append(make("p", "empty", "This dialogue has no checklist."));
    if (found.left) sheet.append(make("p", "muted", `… and ${found.left} more verdicts`));
    const panes = make("div", "panes");
    panes.append(talk, sheet);
    pane.replaceChildren(head, panes);
    open = { found, entry, talk, sheet, verdicts, pinned: -1 };
    const first = left || mode !== "" ? verdicts.findIndex(({ one }) => fits(one)) : -1;
    if (first >= 0) pin(first);
  };
  const verdictOf = (one, number) => {
    const duty = meta.duties[one.d], button = make("button", `verdict ${"fpun".includes(one.r) ? one.r : ""}`);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const name = make("span", "name", duty.name);
    if (one.i) name.append(make("span", "muted", ` ${one.i}${one.v ? ` · variant ${one.v}` : ""}`));
    button.append(make("span", "sign", SIGNS[one.r]), name);
    button.append(["critical", "major", "minor"].includes(duty.severity) ? make("span", `badge ${duty.severity}`, duty.severity) : make("span"));
    button.append(make("span", "ask", one.q ?? duty.q));
    button.append(make("span", "why", `${meta.results[one.r]}: ${one.w || "no reason given"}`));
    const condition = one.c ?? duty.c;
    const more = [condition === (one.q ?? duty.q) ? "" : condition, [
      one.j >= 0 ? `judge ${meta.judges[one.j]}` : "no judge", one.s !== undefined ? `after step ${one.s}` : "",
      duty.owner ? `owner ${duty.owner}` : "", one.$ ? `$${one.$}` : "", one.e ? "" : "no evidence given"].filter(Boolean).join(" · ")];
    more.filter(Boolean).forEach((text) => button.append(make("span", "more", text)));
    button.addEventListener("click", () => pin(open.verdicts.findIndex((each) => each.number === number), true));
    return button;
  };
  const evidence = (one, number) => {
    const marks = [...open.talk.querySelectorAll("mark")].filter((mark) => mark.dataset.e.split(" ").includes(String(number)));
    const places = one.e || (one.t >= 0 && one.s !== undefined ? [[one.t, one.s]] : []);
    const steps = places.map(([turn, step]) => open.talk.querySelector(`.step[data-at="${Number(turn)} ${Number(step)}"]`)).filter(Boolean);
    if (marks.length) return [marks, marks[0]];
    if (steps.length) return [steps, steps[0]];
    const turn = one.t >= 0 ? open.talk.querySelector(`.user[data-turn="${Number(one.t)}"]`) : null;
    return turn ? [[turn], turn] : [[], null];
  };
  const pin = (place, toggle) => {
    const same = toggle && open.pinned === place;
    open.verdicts.forEach(({ element }) => element.setAttribute("aria-pressed", "false"));
    open.talk.querySelectorAll(".on").forEach((element) => element.classList.remove("on"));
    open.pinned = same ? -1 : place;
    if (same || place < 0) return;
    const { one, number, element } = open.verdicts[place];
    element.setAttribute("aria-pressed", "true");
    inView(open.sheet, element);
    const [lit, first] = evidence(one, number);
    lit.forEach((each) => each.classList.add("on"));
    if (first) inView(open.talk, first);
  };
  const inView = (box, element) => { // scrolls boxes of ours, never the page
    const inner = element.closest(".text");
    if (inner && inner.scrollHeight > inner.clientHeight) inner.scrollTop += element.getBoundingClientRect().top - inner.getBoundingClientRect().top - inner.clientHeight / 3;
    const [outer, mine] = [box.getBoundingClientRect(), element.getBoundingClientRect()];
    if (mine.top < outer.top + 8 || mine.bottom > outer.bottom - 8) box.scrollTop += mine.top - outer.top - Math.max(12, (outer.height - mine.height) / 3);
  };
  pane.addEventListener("click", (event) => { // from the evidence to its verdict
    const mark = event.target instanceof Element && event.target.closest("mark");
    if (!mark || !open) return;
    const numbers = mark.dataset.e.split(" ").map(Number);
    const after = numbers[(numbers.indexOf(open.pinned >= 0 ? open.verdicts[open.pinned].number : -1) + 1) % numbers.length];
    pin(open.verdicts.findIndex((each) => each.number === after));
  });

  // Filters, keys, and the numbers of the tables that lead here.
  Object.values(filters).forEach((element) => element && element.addEventListener("input", filter));
  const clear = () => Object.entries(filters).forEach(([name, element]) => { if (element) element.value = name === "order" ? "file" : ""; });
  $("clear").addEventListener("click", () => { clear(); filter(); });
  const near = () => $("dialogues").scrollIntoView();
  const openNumber = (number) => {
    const index = shown.findIndex((one) => one[NUMBER] === number);
    if (index >= 0) select(index, true);
    return index >= 0;
  };
  document.addEventListener("click", async (event) => {
    const go = event.target instanceof Element && event.target.closest(".go");
    if (!go) return;
    clear();
    if (go.dataset.duty) filters.duty.value = go.dataset.duty;
    if (go.dataset.result) filters.result.value = go.dataset.result;
    const mode = go.dataset.mode || go.dataset.modeOf;
    if (mode && filters.mode) filters.mode.value = [...filters.mode.options].some((one) => one.value === mode) ? mode : "";
    near();
    await loaded;
    filter();
    if (go.dataset.open) openNumber(+go.dataset.open);
    else { list.scrollTop = 0; if (matchMedia("(min-width: 761px)").matches) select(0); list.focus({ preventScroll: true }); }
  });
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(shown.length - 1, at + page), PageUp: Math.max(0, at - page), Home: 0, End: shown.length - 1 }[event.key];
    if (event.key === "Enter" && at >= 0) { event.preventDefault(); pane.focus({ preventScroll: true }); return; }
    if (to === undefined) return;
    event.preventDefault();
    select(to);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
    if (event.key === "Escape") {
      viewer.classList.remove("reading");
      list.focus({ preventScroll: true });
      return;
    }
    if (typing) return;
    const count = open ? open.verdicts.length : 0;
    if (event.key === "/") { event.preventDefault(); near(); filters.text.focus(); }
    else if (event.key === "j") select(at + 1);
    else if (event.key === "k") select(at - 1);
    else if (event.key === "n" && count) pin((open.pinned + 1) % count);
    else if (event.key === "p" && count) pin((open.pinned + count - (open.pinned < 0 ? 0 : 1)) % count);
    else if (event.key === "f" && count) {
      for (let ahead = 1; ahead <= count; ahead++) {
        const place = (open.pinned + ahead) % count;
        if (open.verdicts[place].one.r === "f") { pin(place); break; }
      }
    }
  });

  pane.append(make("p", "empty", "Choose a dialogue."));
  const start = async () => {
    for (let number = 0; number < meta.indexes; number++) {
      entries = entries.concat(await read(`index-${number}`));
      complete = number === meta.indexes - 1;
      filter();
      if (number === 0) performance.mark("cm2-list");
    }
    performance.mark("cm2-all");
    const asked = /^#dialogue-(\d+)$/.exec(location.hash);
    if (asked && openNumber(+asked[1])) near();
  };
  const loaded = start().catch((error) => { pane.replaceChildren(make("p", "empty", String(error.message || error))); });
})();
