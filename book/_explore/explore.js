// Figures to explore: nothing is loaded before the reader asks for it by the button.
// Plain scripts and no fetch, so that a page opened from a folder works as one from a server.
"use strict";

window.exploreData = window.exploreData || {};
window.exploreFigures = window.exploreFigures || {};

window.explore = {
  // An element with attributes and children; strings become text, never markup.
  element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  },

  // A form control beside its label, and what else belongs to them.
  labelled(text, control, ...more) {
    control.id = `explore-${text.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    const label = explore.element("label", { for: control.id }, text);
    return explore.element("span", { class: "explore-control" }, label, control, ...more);
  },

  // A table; cells are strings or elements, the first of a row names it.
  table(caption, head, rows) {
    const { element } = explore;
    const cells = (row) =>
      row.map((cell, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
    return element(
      "div",
      { class: "explore-table", tabindex: "0", role: "region", "aria-label": caption },
      element(
        "table",
        {},
        element("caption", {}, caption),
        element("thead", {}, element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row))))
      )
    );
  },

  // With a minus sign, not a hyphen.
  number: (x, digits) => x.toFixed(digits).replace("-", "\u2212"),

  // What plots share: the page's own colours and type, no frame, no buttons.
  layout(more) {
    const style = getComputedStyle(document.body);
    const said = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
    const text = said("--pst-color-text-base", style.color);
    const quiet = said("--pst-color-border", "#999999");
    const surface = said("--pst-color-surface", "#ffffff");
    const axis = { gridcolor: quiet, linecolor: quiet, zerolinecolor: quiet, color: text };
    return {
      colours: { text, quiet, surface, axis },
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: style.fontFamily, color: text, size: 13 },
        hoverlabel: { bgcolor: surface, bordercolor: text, font: { color: text }, align: "left" },
        showlegend: false,
        dragmode: false,
        ...more,
      },
    };
  },

  options: { displaylogo: false, displayModeBar: false, responsive: true, doubleClick: false },

  // Draw again when the reader changes between light and dark.
  onTheme(draw) {
    const watched = new MutationObserver(draw);
    watched.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  },
};

(() => {
  const load = (source) =>
    new Promise((resolve, reject) => {
      const script = explore.element("script", { src: source });
      script.onload = resolve;
      script.onerror = () => reject(new Error(source));
      document.head.append(script);
    });

  for (const root of document.querySelectorAll(".explore[data-figure]")) {
    const button = root.querySelector("button");
    const status = root.querySelector("[role=status]");
    const panel = root.querySelector(".explore-panel");
    button.hidden = false;
    button.addEventListener("click", async () => {
      button.disabled = true;
      status.textContent = "Loading …";
      try {
        for (const source of root.dataset.scripts.split(" ")) await load(source);
      } catch (error) {
        status.textContent = `Not loaded: ${error.message}. The picture and the table stay.`;
        button.disabled = false;
        return;
      }
      button.hidden = true;
      status.textContent = "";
      panel.hidden = false;
      const name = root.dataset.figure;
      const say = (text) => (status.textContent = text);
      await window.exploreFigures[name](panel, window.exploreData[name], say);
      root.dataset.ready = "";
      panel.querySelector("input, select").focus();
    });
  }
})();
