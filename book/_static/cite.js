/* The boxes that cite a figure: a button that copies. Without it their text can be selected. */
"use strict";

/** Put text on the clipboard; true where that worked. A page from the disk may lack the newer way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

function makeCopyButtons() {
  for (const button of document.querySelectorAll(".cite-copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const copied = await copyText(button.parentElement.querySelector("pre").textContent);
      const said = button.closest(".cite").querySelector(".cite-said");
      const what = button.textContent.replace("Copy ", "");
      said.textContent = copied ? `Copied: ${what}.` : "Not copied: please select the text.";
      button.focus();
    });
  }
}

document.addEventListener("DOMContentLoaded", makeCopyButtons);
