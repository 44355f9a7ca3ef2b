// Elements without markup: every string becomes a text node, so a key named "<script>" has an odd name and no effect.

const SVG = "http://www.w3.org/2000/svg";
let lastId = 0;

/** An id that no other element has. */
export function newId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/**
 * An element. `on` holds listeners, `value` and `checked` are set as properties, all else as attributes; null,
 * undefined and false leave an attribute out, true leaves it empty. Children are nodes, strings, lists or nothing.
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "value" || name === "checked") {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Text that people have written, isolated in its direction, so that it cannot reorder the text beside it. */
export function written(text, attributes = {}) {
  return el("bdi", attributes, String(text));
}

/** Replace the children of a node, and keep the keyboard's place: on the element with the same `data-focus`. */
export function refill(node, ...children) {
  const focused = node.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  node.replaceChildren(...children);
  if (focused) node.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

/** Replace a node, and keep the keyboard's place: on the element with the same `data-focus`. */
export function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  old.replaceWith(fresh);
  if (focused) fresh.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  return fresh;
}
