(() => {
  "use strict";
  const evidence = (outcome) => {
    const found = [...document.querySelectorAll(`mark[data-e~="${outcome.dataset.show}"]`)];
    const step = outcome.dataset.step && document.getElementById(outcome.dataset.step);
    return step ? [step, ...found] : found;
  };
  let pinned = null;
  let shown = [];
  const show = (outcome) => {
    shown.forEach((element) => element.classList.remove("on"));
    shown = outcome ? evidence(outcome) : [];
    shown.forEach((element) => element.classList.add("on"));
  };
  const outcomeAt = (event) => event.target instanceof Element && event.target.closest(".outcome");

  document.addEventListener("mouseover", (event) => show(outcomeAt(event) || pinned));
  document.addEventListener("focusin", (event) => show(outcomeAt(event) || pinned));
  document.addEventListener("click", (event) => {
    const outcome = outcomeAt(event);
    if (!outcome) return;
    if (pinned) pinned.setAttribute("aria-pressed", "false");
    pinned = pinned === outcome ? null : outcome;
    if (pinned) pinned.setAttribute("aria-pressed", "true");
    show(pinned);
    if (pinned && shown.length) shown[shown.length - 1].scrollIntoView({ block: "nearest" });
  });

  document.addEventListener("mouseover", (event) => {
    document.querySelectorAll(".outcome.hint").forEach((outcome) => outcome.classList.remove("hint"));
    const mark = event.target instanceof Element && event.target.closest("mark[data-e]");
    if (!mark) return;
    for (const key of mark.dataset.e.split(" "))
      for (const outcome of document.querySelectorAll(`.outcome[data-show="${key}"]`)) outcome.classList.add("hint");
  });
})();
