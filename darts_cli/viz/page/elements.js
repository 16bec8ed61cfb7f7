// Creates elements. Data of a run only ever becomes text; none of it is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

// Splits a name such as c_{k-2} into text and subscripts, which `lower` creates.
function named(name, lower) {
  const found = /^(.*)_\{(.*)\}$/.exec(name);
  return found ? [found[1], lower(found[2])] : [name];
}

const namedHtml = (name) => named(name, (text) => html("sub", {}, text));

// Returns a name as plain text, for attributes and labels.
const namedText = (name) => name.replace("_{", "[").replace("}", "]");

// Wraps elements that may be wider than a phone in a box that arrow keys can scroll.
const scrolled = (label, ...children) =>
  html("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": label }, ...children);

const heading = (level, ...children) => html(`h${level}`, {}, ...children);

const folded = (title, ...children) =>
  html("details", {}, html("summary", {}, title), ...children);

// Returns an id that is unique in the page, for labels.
let made = 0;
const freshId = () => `made-${(made += 1)}`;

const whole = (number) => number.toLocaleString("en-US");

function format(value, percent = false) {
  if (value === null || value === undefined) return "–";
  if (percent) return `${(100 * value).toFixed(2)} %`;
  if (Number.isInteger(value)) return whole(value);
  const rounded = Number(value.toPrecision(5));
  return Math.abs(rounded) < 0.001 ? rounded.toExponential() : String(rounded);
}
