/* The gallery's form: shows the figures of one claim, of one edition, or both. */
"use strict";

/** Hide the entries that were not chosen, and headings below which nothing is left. */
function chooseFigures(form, entries) {
  const claim = form.elements.claim.value;
  const edition = form.elements.edition.value;
  let count = 0;
  for (const entry of entries) {
    const claims = entry.dataset.claims.split(" ");
    const editions = entry.dataset.editions.split("|");
    entry.hidden =
      (claim !== "" && !claims.includes(claim)) ||
      (edition !== "" && !editions.includes(edition));
    count += entry.hidden ? 0 : 1;
  }
  for (const section of new Set(entries.map((entry) => entry.closest("section")))) {
    section.hidden = !section.querySelector(".gallery-entry:not([hidden])");
  }
  form.querySelector(".gallery-clear").disabled = claim === "" && edition === "";
  form.querySelector("output").textContent =
    `${count} of ${entries.length} figures` +
    (count === 0 ? ": nothing matches this choice. Press Show all to clear it." : "");
}

function makeGallery() {
  const form = document.querySelector(".gallery-form");
  if (!form) return;
  const entries = [...document.querySelectorAll(".gallery-entry")];
  /* What the address asks for: figures.html?claim=panels-agree */
  const asked = new URLSearchParams(window.location.search);
  for (const name of ["claim", "edition"]) {
    const select = form.elements[name];
    const wanted = asked.get(name);
    if ([...select.options].some((option) => option.value === wanted)) select.value = wanted;
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => chooseFigures(form, entries));
  form.querySelector(".gallery-clear").addEventListener("click", () => {
    form.elements.claim.value = form.elements.edition.value = "";
    chooseFigures(form, entries);
    form.elements.claim.focus(); /* a button that is switched off keeps no focus */
  });
  chooseFigures(form, entries);
}

document.addEventListener("DOMContentLoaded", makeGallery);
