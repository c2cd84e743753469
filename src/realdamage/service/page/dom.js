// Makes elements. Text always goes in as text, never as markup: a file's name may hold anything.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. `class`, `on…` handlers and booleans as one expects; strings become text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A share in 0..1 as a percentage without false precision. */
export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 1) return "< 1%";
  if (value < 100 && value > 99) return "> 99%";
  return `${Math.round(value)}%`;
}
