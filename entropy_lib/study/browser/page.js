"use strict";
// The page of a study: a name, the pairs in the rater's own order, a file of answers. It sends nothing anywhere.
const study = JSON.parse(document.getElementById("study").textContent);
const PLACE = `entropy_lib study ${study.digest}`;
const ASKED = {
  rating: "How well does each image fit the text?",
  choice: "Which image fits the text better?",
};
const SHORTEST = 200; // milliseconds in which a key still belongs to the pair before

/** An element with attributes and children; text is always text, so that a prompt can hold anything. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// What is kept in the browser, so that a closed page goes on where it was.
let keeps = true;
function keep(state) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(state));
  } catch {
    keeps = false;
  }
}
function kept() {
  try {
    const state = JSON.parse(localStorage.getItem(PLACE));
    return state && state.study === study.digest ? state : null;
  } catch {
    return null;
  }
}
function begin(rater) {
  return { study: study.digest, protocol: study.protocol, rater, started: new Date().toISOString(), finished: null, answers: [] };
}

/** Pairs in the order of a rater, and which of them have image b on the left: as many as not. */
function order(jsPsych, rater) {
  jsPsych.randomization.setSeed(`${study.digest} ${rater}`);
  const sides = jsPsych.randomization.shuffle(study.pairs.map((_, index) => index % 2 === 1));
  return jsPsych.randomization.shuffle(study.pairs).map((pair, index) => ({ ...pair, flipped: sides[index] }));
}

class TwoImages {
  static info = {
    name: "two-images",
    version: "1.0.0",
    parameters: {
      pair: { type: jsPsychModule.ParameterType.OBJECT },
      number: { type: jsPsychModule.ParameterType.INT },
      count: { type: jsPsychModule.ParameterType.INT },
    },
    data: {
      answer: { type: jsPsychModule.ParameterType.OBJECT },
    },
  };

  constructor(jsPsych) {
    this.jsPsych = jsPsych;
  }

  trial(display, { pair, number, count }) {
    const [a, b] = pair.images;
    const sources = pair.flipped ? { left: b, right: a } : { left: a, right: b };
    const started = performance.now();
    const finish = (found) => {
      if (performance.now() - started < SHORTEST) return;
      document.removeEventListener("keydown", onKey);
      const answer = { pair: pair.name, order: number, left: pair.flipped ? "b" : "a", milliseconds: Math.round(performance.now() - started) };
      this.jsPsych.finishTrial({ answer: { ...answer, ...found } });
    };
    const figures = ["left", "right"].map((side) =>
      make("figure", { "data-side": side }, make("img", { src: sources[side], alt: `${side} image` })));
    const heading = make("h1", { tabindex: "-1" }, `“${pair.prompt}”`);
    const { controls, keys } = study.protocol === "choice" ? this.choice(finish) : this.rating(figures, finish);
    const onKey = (event) => {
      const action = keys[event.key];
      if (!action || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      action();
    };
    display.replaceChildren(make("main", {},
      make("p", { class: "count" }, `Pair ${number} of ${count}. ${ASKED[study.protocol]}`),
      make("progress", { max: count, value: number - 1, "aria-label": `${number - 1} of ${count} done` }),
      heading, make("div", { class: "images" }, ...figures), controls));
    document.addEventListener("keydown", onKey);
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  choice(finish) {
    const ways = [["left", "Left", "ArrowLeft", "←"], ["tie", "No difference", "ArrowDown", "↓"], ["right", "Right", "ArrowRight", "→"]];
    const keys = {};
    const buttons = ways.map(([choice, label, key, sign]) => {
      keys[key] = () => finish({ choice });
      return make("button", { type: "button", "data-choice": choice, "aria-keyshortcuts": key, onclick: keys[key] },
        `${label} `, make("kbd", {}, sign));
    });
    return { controls: make("div", { class: "buttons choice", role: "group", "aria-label": ASKED.choice }, ...buttons), keys };
  }

  rating(figures, finish) {
    const scores = { left: null, right: null };
    let current = "left";
    const inputs = {};
    const show = (side) => {
      current = side;
      figures.forEach((figure) => figure.classList.toggle("current", figure.dataset.side === side));
    };
    const set = (side, score) => {
      scores[side] = score;
      inputs[side][score - 1].checked = true;
      next.disabled = scores.left === null || scores.right === null;
    };
    const done = () => next.disabled || finish({ left_score: scores.left, right_score: scores.right });
    const next = make("button", { type: "button", class: "main", disabled: true, onclick: done }, "Next ", make("kbd", {}, "Enter"));
    for (const figure of figures) {
      const side = figure.dataset.side;
      inputs[side] = Array.from({ length: 10 }, (_, index) =>
        make("input", { type: "radio", name: side, value: index + 1, onchange: () => set(side, index + 1) }));
      const labels = inputs[side].map((input, index) => make("label", {}, `${index + 1}`, input));
      figure.addEventListener("focusin", () => show(side));
      figure.append(make("fieldset", {}, make("legend", {}, `${side === "left" ? "Left" : "Right"} image`),
        make("div", { class: "scores" }, ...labels),
        make("div", { class: "ends", "aria-hidden": "true" }, make("span", {}, "not at all"), make("span", {}, "perfectly"))));
    }
    const keys = { Enter: done, l: () => show("left"), r: () => show("right") };
    for (let score = 1; score <= 10; score += 1) {
      keys[`${score % 10}`] = () => {
        set(current, score);
        show("right");
      };
    }
    show("left");
    return { controls: make("div", { class: "buttons" }, next), keys };
  }
}

/** A page of text with buttons; jsPsych's own trial type for that escapes nothing. */
function text(title, ...children) {
  document.body.replaceChildren(make("main", { class: "text" }, make("h1", { tabindex: "-1" }, title), ...children));
  document.querySelector("h1").focus({ preventScroll: true });
}

function welcome() {
  const state = kept();
  if (state && state.finished) return thanks(state);
  if (state && state.answers.length) return back(state);
  const name = make("input", { type: "text", id: "rater", autocomplete: "off", maxlength: 60, required: true });
  const form = make("form", { onsubmit: (event) => { event.preventDefault(); if (name.value.trim()) run(begin(name.value.trim())); } },
    make("label", { for: "rater" }, "A name or number for your answers, any that nobody else takes:"), name,
    make("div", { class: "buttons" }, make("button", { class: "main", type: "submit" }, "Begin")));
  const how = study.protocol === "choice"
    ? "You will see a text and two images. Say which image fits the text better, or that there is no difference. Keys: ← left, → right, ↓ no difference."
    : "You will see a text and two images. Rate how well each of them fits the text, from 1 (not at all) to 10 (perfectly). Keys: a digit for the left image (0 is ten), a digit for the right one, Enter for the next pair; l and r go back to an image.";
  text(study.title, make("p", {}, how),
    make("p", {}, `There are ${study.pairs.length} pairs. Trust your first impression; there is no hurry. Answers stay in this browser, and at the end you save them as one file.`), form);
  name.focus();
}

function back(state) {
  text(`Welcome back, ${state.rater}`,
    make("p", {}, `${state.answers.length} of ${study.pairs.length} pairs are answered.`),
    make("div", { class: "buttons" },
      make("button", { class: "main", onclick: () => run(state) }, "Go on"),
      saver(state, "Save what is there"),
      make("button", { onclick: () => { if (confirm("Throw away the answers that are there?")) { localStorage.removeItem(PLACE); welcome(); } } }, "Start over")));
  document.querySelector("button.main").focus();
}

function saver(state, label, kind = "button") {
  const name = `answers-${state.rater.replace(/[^\p{L}\p{N}_-]+/gu, "_")}-${study.digest}.json`;
  const content = URL.createObjectURL(new Blob([JSON.stringify(state, null, 1)], { type: "application/json" }));
  return make("a", { class: kind, href: content, download: name, id: "save" }, label);
}

function thanks(state) {
  text("Thank you", make("p", {}, `All ${study.pairs.length} pairs are answered. Save the file and send it to whoever asked you.`),
    make("div", { class: "buttons" }, saver(state, "Save answers", "button main")),
    make("p", {}, "If nothing can be saved here, copy this text instead:"),
    make("textarea", { readonly: true, "aria-label": "answers as text", onfocus: (event) => event.target.select() }, JSON.stringify(state, null, 1)),
    make("div", { class: "buttons" }, make("button", { onclick: () => { localStorage.removeItem(PLACE); welcome(); } }, "Another person")));
  document.getElementById("save").focus();
}

async function run(state) {
  const stage = make("div");
  document.body.replaceChildren(stage);
  const jsPsych = initJsPsych({
    display_element: stage,
    override_safe_mode: true, // there is no sound and no film to load, which is all that safe mode is about
    on_data_update: ({ answer }) => { state.answers.push(answer); keep(state); },
  });
  keep(state);
  const done = new Set(state.answers.map((answer) => answer.pair));
  const trials = order(jsPsych, state.rater)
    .map((pair, index) => ({ type: TwoImages, pair, number: index + 1, count: study.pairs.length }))
    .filter(({ pair }) => !done.has(pair.name));
  if (!keeps) alert("This browser keeps nothing: do not close the page before you have saved your answers.");
  await jsPsych.run(trials);
  state.finished = new Date().toISOString();
  keep(state);
  thanks(state);
}

welcome();
