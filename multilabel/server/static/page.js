"use strict";

// What the page knows. Pictures, answers and labels stay in this window.
const state = { model: null, thresholds: new Map(), cards: [], key: "", correcting: false, next: 0 };
const AT_ONCE = 4; // requests; the server puts their pictures together

const by = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(text) {
  by("status").textContent = text;
}

// --- The server

async function ask(path, options = {}) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  const response = await fetch(path, { ...options, headers });
  const said = await response.json();
  if (response.status === 401) by("key-form").hidden = false;
  return { status: response.status, said };
}

async function loadModel() {
  const { status, said } = await ask("model");
  if (status !== 200) {
    by("about").textContent = "";
    say(said.error);
    by("key").focus();
    return;
  }
  by("key-form").hidden = true;
  say("");
  if (state.model !== null) return; // the key was asked for anew amid work
  state.model = said;
  resetThresholds();
  document.title = `${said.run_name}: multilabel`;
  by("title").textContent = said.run_name;
  const names = [...said.attributes, ...said.tags].map((known) => known.name);
  by("about").textContent = `Knows ${names.join(", ")}.`;
  const chance = [...said.attributes, ...said.tags].filter((known) => known.not_better_than_chance);
  by("chance").hidden = chance.length === 0;
  by("chance").textContent =
    `Not better than chance when the model was measured, so do not rely on: ${chance.map((one) => one.name).join(", ")}.`;
  by("thresholds").hidden = said.attributes.length === 0;
  by("labels-txt").hidden = said.tags.length > 0 || said.attributes.length === 0; // has no room for classes
  drawScores();
  drawSliders();
}

// What `fit` measured; of its parts the last one, which is the test part if there was one.
function drawScores() {
  const part = state.model.scores?.at(-1);
  by("scores").hidden = part === undefined;
  if (part === undefined) return;
  by("measured").textContent = `On the ${part.part}: ${part.pictures} pictures.`;
  const scores = [
    ...Object.entries(part.attributes ?? {}).flatMap(([name, said]) => [["F1", "f1"], ["AUC", "roc_auc"]].map(
      ([title, key]) => [name, said.known, title, said[key]])),
    ...Object.entries(part.tags ?? {}).map(([name, said]) => [name, said.known, "accuracy", said.accuracy]),
  ];
  const digits = (value) => (value === null || value === undefined ? "" : value.toFixed(2));
  by("table").replaceChildren(
    ...scores.filter(([, , , score]) => score).map(([name, known, title, { value, low, high, chance }]) => {
      const interval = low === null || low === undefined ? "" : `${digits(low)} to ${digits(high)}`;
      const cells = [known, title, digits(value), interval, digits(chance)].map((text, index) =>
        element("td", { textContent: text, className: index > 1 ? "number" : "" }));
      return element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells);
    })
  );
}

async function predict(card) {
  const form = new FormData();
  form.append("files", card.file, card.name);
  for (let left = 60; ; left -= 1) {
    let answer;
    try {
      answer = await ask("predict?tolerant=true", { method: "POST", body: form });
    } catch {
      card.said = failed(card.name, "the server cannot be reached");
      return;
    }
    if (answer.status !== 503 || left === 0) {
      const said = answer.said.pictures?.[0] ?? failed(card.name, answer.said.error);
      card.said = fits(said) ? said : failed(card.name, "the server has another model now; load this page anew");
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000)); // as Retry-After says
  }
}

// Whether an answer is of the model that this page knows.
function fits({ error, attributes, tags }) {
  const { attributes: known, tags: sorts } = state.model;
  return error !== null || (known.every(({ name }) => name in attributes) && sorts.every(({ name }) => name in tags));
}

function failed(name, error) {
  return { image: name, error, present: null, attributes: null, tags: null };
}

async function explain(card, name) {
  if (!card.maps.has(name)) {
    const form = new FormData();
    form.append("files", card.file, card.name);
    card.maps.set(
      name,
      ask(`predict?explain=${encodeURIComponent(name)}`, { method: "POST", body: form })
        .then(({ status, said }) => (status === 200 ? said.pictures[0].explanation.overlay : null))
        .catch(() => null)
    );
  }
  const overlay = await card.maps.get(name);
  if (overlay === null) card.maps.delete(name); // the next try may go well
  return overlay;
}

// --- Pictures

async function add(files, pasted = false) {
  if (files.length === 0) return;
  if (!state.model) {
    say(by("key-form").hidden ? "The model is not there yet; try again." : "First enter the key.");
    return;
  }
  const cards = [...files].map((file) => ({
    // A browser calls every pasted picture the same.
    number: ++state.next, file, pasted: pasted && file.name === "image.png",
    name: pasted && file.name === "image.png" ? `pasted-${state.next}.png` : file.name,
    said: null, labels: new Map(), maps: new Map(),
  }));
  state.cards.push(...cards);
  by("tools").hidden = false;
  cards.forEach(drawCard);
  const waiting = [...cards];
  let done = 0;
  async function work() {
    for (let card = waiting.shift(); card; card = waiting.shift()) {
      if (state.cards.includes(card)) await predict(card);
      done += 1;
      if (state.cards.includes(card)) drawCard(card);
      say(`Predicted ${done} of ${cards.length} ...`);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const broken = cards.filter((card) => card.said !== null && card.said.error !== null).length;
  say(`${cards.length} ${cards.length === 1 ? "picture" : "pictures"} done${broken ? `; ${broken} could not be read` : ""}.`);
  sumUp();
}

const answered = () => state.cards.filter((card) => card.said !== null);
const readable = () => answered().filter((card) => card.said.error === null);
const isPresent = (card, name) => card.said.attributes[name].probability > state.thresholds.get(name);

// --- Cards

function drawCard(card) {
  const old = card.element;
  const remove = element("button", { type: "button", textContent: "Remove" });
  remove.setAttribute("aria-label", `Remove ${card.name}`);
  remove.addEventListener("click", () => removeCard(card));
  card.element = element("article", {}, element("h2", {}, element("span", { textContent: card.name }), remove));
  card.element.setAttribute("aria-label", card.name);
  if (card.said === null) {
    card.element.append(element("p", { className: "note", textContent: "Waiting ..." }));
  } else if (card.said.error !== null) {
    card.element.append(element("p", { className: "error", textContent: `Cannot be used: ${card.said.error}` }));
  } else {
    card.view = drawView(card);
    card.rows = new Map();
    const rows = element("ul", { className: "rows" });
    for (const known of state.model.attributes) rows.append(drawAttribute(card, known));
    for (const known of state.model.tags) rows.append(drawTag(card, known));
    card.element.append(card.view, rows);
    for (const known of state.model.attributes) update(card, known.name);
  }
  if (old) {
    const focused = old.contains(document.activeElement);
    old.replaceWith(card.element);
    if (focused) remove.focus();
  } else by("pictures").append(card.element);
}

function drawView(card) {
  card.url ??= URL.createObjectURL(card.file);
  const photo = element("img", { className: "photo", src: card.url, alt: `The picture ${card.name}` });
  photo.addEventListener("error", () => photo.replaceWith(element("p", { className: "note", textContent: "No preview." })));
  return element("div", { className: "view" }, photo);
}

function row(card, known) {
  const inner = element(state.model.explains ? "button" : "div", { className: "row" });
  if (state.model.explains) {
    inner.type = "button";
    inner.addEventListener("mouseenter", () => show(card, known.name));
    inner.addEventListener("focus", () => show(card, known.name));
    inner.addEventListener("click", () => show(card, known.name));
    inner.addEventListener("mouseleave", () => hide(card));
    inner.addEventListener("blur", () => hide(card));
  }
  const name = element("span", { className: "name", textContent: known.name });
  if (known.not_better_than_chance) name.append(element("span", { className: "badge", textContent: " no better than chance" }));
  inner.append(name);
  return inner;
}

function bar(probability) {
  const made = element("span", { className: "bar" }, element("i"));
  made.setAttribute("aria-hidden", "true");
  made.firstChild.style.width = `${100 * probability}%`;
  return made;
}

function drawAttribute(card, known) {
  const { probability } = card.said.attributes[known.name];
  const inner = row(card, known);
  const value = element("span", { className: "value" });
  const drawn = bar(probability);
  drawn.append(element("b"));
  inner.append(value, drawn);
  const item = element("li", {}, inner);
  card.rows.set(known.name, item);
  if (state.correcting) item.append(labelsOfAttribute(card, known.name));
  return item;
}

function drawTag(card, known) {
  const said = card.said.tags[known.name];
  const inner = row(card, known);
  inner.classList.add("tag");
  inner.append(element("span", { className: "value", textContent: said.class === null ? "undecided" : "" }));
  for (const { class: name, probability } of said.top) {
    inner.append(
      element("span", { className: "name", textContent: name }),
      element("span", { className: "value", textContent: probability.toFixed(2) }),
      bar(probability)
    );
  }
  const item = element("li", {}, inner);
  if (state.correcting) item.append(labelsOfTag(card, known));
  return item;
}

// The part of a card that the threshold of an attribute changes.
function update(card, name) {
  const item = card.rows.get(name);
  const { probability, threshold } = card.said.attributes[name];
  const present = isPresent(card, name);
  item.classList.toggle("present", present);
  item.classList.toggle("flipped", present !== probability > threshold);
  item.querySelector(".value").textContent = `${probability.toFixed(2)} ${present ? "present" : "absent"}`;
  item.querySelector(".bar > b").style.left = `${100 * state.thresholds.get(name)}%`;
}

function removeCard(card) {
  state.cards = state.cards.filter((other) => other !== card);
  if (card.url) URL.revokeObjectURL(card.url);
  card.element.remove();
  by("tools").hidden = state.cards.length === 0;
  by("files").focus();
  say(`${card.name} is removed.`);
  sumUp();
}

async function show(card, name) {
  card.shown = name;
  await new Promise((resolve) => setTimeout(resolve, 150)); // who only passes over it wants nothing
  if (card.shown !== name) return;
  const overlay = await explain(card, name);
  if (card.shown !== name) return;
  if (overlay === null) {
    say("The evidence cannot be shown now; try again.");
    return;
  }
  card.view.querySelectorAll(".map").forEach((map) => map.remove());
  const alt = `Where in ${card.name} the evidence for ${name} lies: red speaks for it, blue against it`;
  card.view.append(element("img", { className: "map", src: overlay, alt }));
  card.view.classList.add("explained");
}

function hide(card) {
  card.shown = null;
  card.view.querySelectorAll(".map").forEach((map) => map.remove());
  card.view.classList.remove("explained");
}

// --- Thresholds

function resetThresholds() {
  state.thresholds = new Map(state.model.attributes.map(({ name, threshold }) => [name, threshold]));
}

function drawSliders() {
  const sliders = state.model.attributes.map(({ name }) => {
    const slider = element("input", { type: "range", min: 0, max: 1, step: "any", value: state.thresholds.get(name) });
    const value = element("span", { className: "value", textContent: state.thresholds.get(name).toFixed(3) });
    slider.addEventListener("input", () => {
      state.thresholds.set(name, Math.round(1000 * slider.value) / 1000);
      value.textContent = state.thresholds.get(name).toFixed(3);
      readable().forEach((card) => update(card, name));
      sumUp();
    });
    slider.setAttribute("aria-label", `Threshold of ${name}`);
    return element("li", {}, element("p", { className: "slider" }, element("span", { textContent: name }), value), slider);
  });
  by("sliders").replaceChildren(...sliders);
  sumUp();
}

// Which calls the thresholds of this page change, and how the command line would have them.
function sumUp() {
  const flips = state.model.attributes
    .map(({ name }) => {
      const changed = readable().filter((card) => isPresent(card, name) !== card.said.attributes[name].present);
      return changed.length ? `${name} of ${changed.map((card) => card.name).join(", ")}` : null;
    })
    .filter((text) => text !== null);
  by("flips").textContent = flips.length ? `Changed: ${flips.join("; ")}.` : "";
  by("line").value = state.model.attributes
    .map(({ name }) => `--threshold ${quoted(`${name}=${state.thresholds.get(name)}`)}`)
    .join(" ");
}

// For a shell.
function quoted(text) {
  return /^[\w.,=@%+:\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// --- Files

function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function savePredictions(name, text, type) {
  save(name, text, type);
  const left = state.cards.length - answered().length;
  if (left) say(`Saved without ${left} that ${left === 1 ? "is" : "are"} not predicted yet.`);
}

// A cell, a probability and a table as `multilabel infer --format csv` writes them.
function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function sixDigits(number) {
  if (number === 0) return "0";
  const [digits, power] = number.toExponential(5).split("e");
  if (Number(power) >= -4 && Number(power) < 6) return String(Number(number.toPrecision(6)));
  const sign = Number(power) < 0 ? "-" : "+";
  return `${String(Number(digits))}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
}

const table = (rows) => rows.map((row) => `${row.map(cell).join(",")}\n`).join("");

function predictionsCsv() {
  const { attributes, tags } = state.model;
  const header = [
    "image",
    ...attributes.map(({ name }) => `${name}_present`),
    ...attributes.map(({ name }) => `${name}_probability`),
    ...tags.flatMap(({ name }) => [`${name}_class`, `${name}_probability`]),
    "error",
  ];
  const rows = answered().map((card) => {
    if (card.said.error !== null) return [card.name, ...Array(header.length - 2).fill(""), card.said.error];
    return [
      card.name,
      ...attributes.map(({ name }) => (isPresent(card, name) ? 1 : 0)),
      ...attributes.map(({ name }) => sixDigits(card.said.attributes[name].probability)),
      ...tags.flatMap(({ name }) => [card.said.tags[name].class ?? "", sixDigits(card.said.tags[name].probability)]),
      "",
    ];
  });
  return table([header, ...rows]);
}

function predictionsJson() {
  const records = answered().map((card) => {
    const { error, tags } = card.said;
    const image = card.name; // the server may have been told it with other signs
    if (error !== null) return { ...card.said, image };
    const attributes = Object.fromEntries(
      state.model.attributes.map(({ name }) => [
        name,
        {
          probability: card.said.attributes[name].probability,
          threshold: state.thresholds.get(name),
          present: isPresent(card, name),
        },
      ])
    );
    return { image, error, present: Object.keys(attributes).filter((name) => attributes[name].present), attributes, tags };
  });
  return `${JSON.stringify(records, null, 1)}\n`;
}

// --- Labels

const UNKNOWN = "NA";

function labelsOfAttribute(card, name) {
  const choices = [["1", "yes"], ["0", "no"], [UNKNOWN, "not known"]].map(([value, text]) => {
    const input = element("input", { type: "radio", name: `label-${card.number}-${name}`, value });
    input.checked = (card.labels.get(name) ?? UNKNOWN) === value;
    input.addEventListener("change", () => card.labels.set(name, value));
    return element("label", {}, input, ` ${text}`);
  });
  return element("fieldset", { className: "label" }, element("legend", { className: "unseen", textContent: `Label of ${name}` }), ...choices);
}

function labelsOfTag(card, known) {
  const select = element("select");
  select.setAttribute("aria-label", `Label of ${known.name}`);
  select.append(element("option", { value: "", textContent: "not known" }));
  for (const name of known.classes) select.append(element("option", { value: name, textContent: name }));
  select.value = card.labels.get(known.name) ?? "";
  select.addEventListener("change", () => card.labels.set(known.name, select.value));
  return element("div", { className: "label" }, select);
}

function takeOver() {
  for (const card of readable()) {
    for (const { name } of state.model.attributes) {
      if (!card.labels.has(name)) card.labels.set(name, isPresent(card, name) ? "1" : "0");
    }
    for (const { name } of state.model.tags) {
      if (!card.labels.has(name) && card.said.tags[name].class !== null) card.labels.set(name, card.said.tags[name].class);
    }
  }
  redraw();
  by("fit").textContent = "Taken over where you had said nothing; now look at each.";
}

// Pictures that can be labelled, or null and a sentence.
function labelled() {
  const cards = readable();
  const names = cards.map((card) => card.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  const odd = names.find((name) => /^[\s#]|\s$|[\r\n]/.test(name)); // would be read as a comment, or as another name
  const pasted = cards.filter((card) => card.pasted).map((card) => card.name);
  let reason = null;
  if (cards.length === 0) reason = "There are no pictures to label.";
  else if (twice !== undefined) reason = `Two pictures are called ${twice}; remove one, or rename its file.`;
  else if (odd !== undefined) reason = `A labels file cannot hold the name ${JSON.stringify(odd)}; rename the file.`;
  else if (pasted.length) reason = `Pasted pictures are no files yet; remove ${pasted.join(", ")}, or save and add them.`;
  if (reason !== null) by("fit").textContent = reason;
  return reason === null ? cards : null;
}

function saveLabels(name, write) {
  const cards = labelled();
  if (cards === null) return;
  save(name, write(cards), "text/plain");
  const options = [`--labels ${name}`];
  if (name.endsWith(".txt")) options.push(`--names ${quoted(state.model.attributes.map((known) => known.name).join(","))}`);
  if (state.model.tags.length) options.push(`--tags ${quoted(state.model.tags.map((known) => known.name).join(","))}`);
  by("fit").textContent = `Saved. Beside the pictures: multilabel fit ${options.join(" ")}`;
}

function labelsTxt(cards) {
  const line = (card) => [card.name, ...state.model.attributes.map(({ name }) => card.labels.get(name) ?? UNKNOWN)];
  return cards.map((card) => `${line(card).join(" ")}\n`).join("");
}

function labelsCsv(cards) {
  const { attributes, tags } = state.model;
  const header = ["image", ...attributes.map(({ name }) => name), ...tags.map(({ name }) => name)];
  const rows = cards.map((card) => [
    card.name,
    ...attributes.map(({ name }) => card.labels.get(name) ?? UNKNOWN),
    ...tags.map(({ name }) => card.labels.get(name) ?? ""),
  ]);
  return table([header, ...rows]);
}

function redraw() {
  answered().forEach(drawCard);
}

// --- What a person does

by("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  by("drop").classList.add("over");
});
document.addEventListener("dragleave", () => by("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  by("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => add(event.clipboardData.files, true));

by("copy").addEventListener("click", async () => {
  by("line").select();
  try {
    await navigator.clipboard.writeText(by("line").value);
    say("Copied.");
  } catch {
    say("Press Ctrl+C to copy.");
  }
});
by("reset").addEventListener("click", () => {
  resetThresholds();
  drawSliders();
  redraw();
});
by("csv").addEventListener("click", () => savePredictions("predictions.csv", predictionsCsv(), "text/csv"));
by("json").addEventListener("click", () => savePredictions("predictions.json", predictionsJson(), "application/json"));
by("correct").addEventListener("click", () => {
  state.correcting = !state.correcting;
  by("correct").setAttribute("aria-pressed", String(state.correcting));
  by("correcting").hidden = !state.correcting;
  redraw();
});
by("confirm").addEventListener("click", takeOver);
by("labels-txt").addEventListener("click", () => saveLabels("labels.txt", labelsTxt));
by("labels-csv").addEventListener("click", () => saveLabels("labels.csv", labelsCsv));
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = by("key").value;
  begin();
});

function begin() {
  loadModel().catch(() => say("The server cannot be reached."));
}

begin();
