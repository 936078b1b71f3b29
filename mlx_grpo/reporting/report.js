"use strict";
// Everything a run wrote is foreign text: it enters the page as text nodes and attributes, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function svg(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

const MOST_CHOICES = 12;

const figure = (value) => (value === null ? "–" : value.toFixed(3));
const words = (name) => name.replaceAll("_", " ");

// Summary

function table([header, rows]) {
  const models = header.map((name) => data.models.includes(name));
  const most = Math.max(1, ...rows.flatMap((row) => row.map((text, i) => (models[i] ? parseFloat(text) : 0))));
  const cell = (text, i) => {
    if (i === 0) return el("th", { scope: "row" }, words(text));
    if (!models[i]) return el("td", {}, text);
    const fill = el("div");
    fill.style.width = `${Math.max(0, (100 * parseFloat(text)) / most)}%`;
    return el("td", {}, text, el("div", { class: "bar", "aria-hidden": "true" }, fill));
  };
  return el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, ...header.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))));
}

function summary() {
  document.title = `${data.model}: mlx-grpo report`;
  at("title").textContent = data.model;
  at("facts").textContent = [data.run, ...data.facts].join(" · ");
  at("missing").append(...data.missing.map((text) => el("li", {}, text)));
  at("missing").hidden = data.missing.length === 0;
  at("tables").append(...data.tables.map(table));
  at("gain").textContent = data.gain ?? "";
}

// Curves

const WIDE = 320, HIGH = 170, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 24;

function ticks(low, high) {
  const rough = (high - low || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
  const found = [];
  for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i++) found.push(i * step);
  return found.length > 1 ? found : [found[0], found[0] + step];
}

function described({ title, series }) {
  const parts = series.map(({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    return `${name} ${first[1]} at step ${first[0]}, ${last[1]} at step ${last[0]}`;
  });
  return `${title}: ${parts.join("; ")}`;
}

function chart(curve) {
  const points = curve.series.flatMap((series) => series.points);
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const marks = low === high ? ticks(Math.min(0, low), Math.max(0, high)) : ticks(low, high);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), marks[0], marks.at(-1)];
  const x = (v) => (x1 === x0 ? (LEFT + WIDE - RIGHT) / 2 : LEFT + ((v - x0) / (x1 - x0)) * (WIDE - LEFT - RIGHT));
  const y = (v) => HIGH - BOTTOM - ((v - y0) / (y1 - y0)) * (HIGH - TOP - BOTTOM);
  const drawn = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": described(curve) });
  for (const mark of marks) {
    drawn.append(svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y(mark), y2: y(mark) }));
    const text = Number(mark.toPrecision(3)).toString();
    drawn.append(svg("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, text));
  }
  drawn.append(svg("text", { x: LEFT, y: HIGH - 6 }, `step ${x0}`));
  if (x1 > x0) drawn.append(svg("text", { x: WIDE - RIGHT, y: HIGH - 6, "text-anchor": "end" }, `${x1}`));
  curve.series.forEach((series, i) => {
    const second = i ? "second " : "";
    const line = series.points.map(([sx, sy]) => `${x(sx).toFixed(1)},${y(sy).toFixed(1)}`).join(" ");
    drawn.append(svg("polyline", { class: `${second}curve`, points: line }));
    for (const [sx, sy] of series.points.length <= 40 ? series.points : []) {
      const point = svg("circle", { class: `${second}point`, cx: x(sx), cy: y(sy), r: 3 });
      point.append(svg("title", {}, `step ${sx}: ${sy}`));
      drawn.append(point);
    }
  });
  return el("figure", {}, el("figcaption", {}, words(curve.title)), drawn);
}

function curves() {
  at("charts").append(...data.curves.map(chart));
  const two = data.curves.find((curve) => curve.series.length > 1);
  at("keys").append(...(two ? two.series : []).map(({ name }, i) => el("span", { class: i ? "key second" : "key" },
    `${i ? "┄" : "─"} ${name}`)));
}

// Completions, held out or sampled

function verdict(answer) {
  const said = answer.verdict ?? (verdicts.length ? "no verdict" : "");
  const text = answer.score === null ? said : `${said} ${answer.score.toFixed(2)}`;
  if (answer.correct === null) return el("span", {}, text);
  return el("span", { class: answer.correct ? "right" : "wrong" },
    el("span", { "aria-hidden": "true" }, answer.correct ? "✓ " : "✗ "),
    el("span", { class: "hidden-text" }, answer.correct ? "correct: " : "wrong: "), text);
}

function remark({ pieces, faults }) {
  const parts = pieces.map(([text, status]) => (status ? el("mark", { class: status, title: status }, text) : text));
  return el("li", {}, ...parts, ...faults.map((text) => el("div", { class: "fault" }, text)));
}

function answer(given, name, components) {
  const raw = el("pre", {}, given.text || "(empty)");
  const marks = given.components.map((value, i) => el("li", {}, `${words(components[i])} `, el("b", {}, figure(value))));
  return el("div", { class: "answer" },
    el("h3", {}, name),
    el("p", {}, verdict(given), el("span", { class: "quiet" }, `  reward ${figure(given.reward)}`)),
    given.remarks === null ? raw : el("ol", {}, ...given.remarks.map(remark)),
    el("ul", { class: "marks" }, ...marks),
    given.remarks === null ? null : el("details", {}, el("summary", {}, "completion as written"), raw));
}

const shown = (texts) => el("div", { class: "shown" },
  ...texts.map(([name, text]) => el("div", { class: "panel" }, el("h4", {}, name), el("p", {}, text))));

// Held-out prompts

const groups = [...data.episodes, ...data.samples.steps.flatMap((step) => step.groups)];
const every = groups.flatMap((group) => group.answers);
const labelled = data.episodes.some((episode) => episode.label !== null);
const judged = every.some((given) => given.correct !== null);
const labels = distinct(data.episodes.map((episode) => episode.label));
const verdicts = distinct(every.map((given) => given.verdict));
const rows = data.episodes.map(episodeRow);

function distinct(values) {
  return [...new Set(values.filter((value) => value !== null))].sort();
}

function episodeRow(episode, i) {
  const opener = el("button", { type: "button", class: "opener", "aria-expanded": "false" }, episode.id);
  const label = episode.fit === null ? episode.label ?? "" : `${episode.label ?? ""} ${episode.fit.toFixed(2)}`;
  const cells = episode.answers.map((given, m) => el("td", { role: "cell", "data-name": data.models[m] },
    el("span", {}, verdict(given), el("div", { class: "quiet small" }, `reward ${figure(given.reward)}`))));
  const row = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, opener),
    labelled ? el("td", { role: "cell", "data-name": "label" }, label) : null, ...cells);
  const body = el("tbody", { role: "rowgroup" }, row);
  opener.addEventListener("click", () => {
    const open = opener.getAttribute("aria-expanded") !== "true";
    opener.setAttribute("aria-expanded", String(open));
    if (body.rows.length === 1) body.append(detail(episode, cells.length + 1 + labelled));
    body.rows[1].hidden = !open;
  });
  return { episode, body, i };
}

function detail(episode, columns) {
  const answers = episode.answers.map((given, m) => answer(given, data.models[m], data.components));
  return el("tr", { role: "row" }, el("td", { role: "cell", colspan: columns },
    shown(episode.shown), el("div", { class: "answers" }, ...answers)));
}

function choice(name, text, options) {
  const select = el("select", { name }, ...options.map(([value, shown]) => el("option", { value }, shown)));
  return el("label", {}, text, select);
}

function filters() {
  const any = ["", "any"], few = (texts) => texts.length > 1 && texts.length <= MOST_CHOICES;
  const form = at("filters");
  form.append(choice("model", "Filters read", data.models.map((name, i) => [i, name])));
  const itself = (text) => [text, text];
  if (few(labels)) form.append(choice("label", "Label", [any, ...labels.map(itself)]));
  if (few(verdicts)) form.append(choice("verdict", "Verdict", [any, ...verdicts.map(itself), ["none", "none"]]));
  if (judged) form.append(choice("correct", "Correctness", [any, ["true", "correct"], ["false", "wrong"]]));
  form.append(choice("component", "Component", [any, ["reward", "reward"], ...data.components.map((c, i) => [i, words(c)])]),
    el("label", {}, "is at most", el("input", { name: "most", type: "number", step: "any", value: "0.99" })),
    choice("order", "Order", [["", "as in the file"], ["up", "lowest first"], ["down", "highest first"]]),
    el("button", { type: "reset" }, "Reset"));
  const trained = String(data.models.length - 1);
  form.model.querySelector(`option[value="${trained}"]`).defaultSelected = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => filter(form));
  form.addEventListener("reset", () => setTimeout(() => filter(form)));
  filter(form);
}

function filter(form) {
  const model = Number(form.model.value), component = form.component.value;
  const value = ({ episode }) => {
    const given = episode.answers[model];
    return component === "" || component === "reward" ? given.reward : given.components[Number(component)];
  };
  const chosen = (name) => (form[name] ? form[name].value : "");
  const passes = (row) => {
    const given = row.episode.answers[model];
    return (!chosen("label") || row.episode.label === chosen("label"))
      && (!chosen("verdict") || (given.verdict ?? "none") === chosen("verdict"))
      && (!chosen("correct") || String(given.correct) === chosen("correct"))
      && (component === "" || (value(row) !== null && value(row) <= Number(form.most.value)));
  };
  form.most.disabled = component === "";
  const way = { up: 1, down: -1 }[form.order.value] ?? 0;
  const kept = rows.filter(passes);
  rows.forEach((row) => { row.body.hidden = true; });
  [...rows].sort((a, b) => way * (value(a) - value(b)) || a.i - b.i).forEach((row) => at("episodes").append(row.body));
  kept.forEach((row) => { row.body.hidden = false; });
  const mean = (m) => figure(kept.reduce((sum, { episode }) => sum + episode.answers[m].reward, 0) / kept.length);
  const means = data.models.map((name, m) => `${name} ${mean(m)}`).join(", ");
  at("count").textContent = `${kept.length} of ${rows.length} prompts${kept.length ? `; mean reward: ${means}` : ""}`;
}

function heldout() {
  at("legend").hidden = !every.some((given) => given.remarks !== null);
  const names = ["prompt", ...(labelled ? ["label"] : []), ...data.models];
  at("episodes").append(el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
    ...names.map((name) => el("th", { scope: "col", role: "columnheader" }, name)))));
  filters();
}

// Samples by step

function samples() {
  const { steps, shown: [some, all], components } = data.samples;
  at("sampled").textContent = some < all
    ? `${some} of the run's ${all} groups of completions, evenly chosen; samples.jsonl holds them all`
    : "Every completion that the run sampled, by the prompt it answers";
  const pick = el("select", { name: "step" }, ...steps.map(({ step }, i) => el("option", { value: i }, `${step}`)));
  const move = (by) => { pick.selectedIndex = Math.min(steps.length - 1, Math.max(0, pick.selectedIndex + by)); draw(); };
  const draw = () => at("groups").replaceChildren(...steps[pick.selectedIndex].groups.map((g) => group(g, components)));
  const [back, on] = [["Step before", -1], ["Next step", 1]].map(([text, by]) => {
    const button = el("button", { type: "button" }, text);
    button.addEventListener("click", () => move(by));
    return button;
  });
  pick.addEventListener("change", draw);
  at("stepper").append(el("label", {}, "Step", pick), back, on);
  draw();
}

function group({ id, label, shown: texts, answers }, components) {
  const cards = answers.map((given, i) => answer(given, `completion ${i + 1}`, components));
  const title = label === null ? id : `${id} · label: ${label}`;
  return el("article", { class: "group" }, el("h3", {}, title),
    texts.length ? el("details", {}, el("summary", {}, texts.map(([name]) => name.toLowerCase()).join(" and ")), shown(texts)) : null,
    el("div", { class: "answers" }, ...cards));
}

summary();
curves();
const parts = { curves: data.curves.length, heldout: data.episodes.length, samples: data.samples.steps.length };
if (parts.heldout) heldout();
if (parts.samples) samples();
for (const [id, size] of Object.entries(parts)) at(id).hidden = size === 0;
for (const section of document.querySelectorAll("main > section:not([hidden])")) {
  at("sections").append(el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
}
