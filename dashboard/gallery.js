// Ties the phrases of a report, the shapes on its pictures and the rows of its list together.
// Everything that belongs to one finding carries the same data-finding within its article. What is
// pointed at is `lit`; what was clicked is `chosen` and stands in the address: #article/tag.
"use strict";

const tip = document.getElementById("tip");

function parts(article, number) {
  return article.querySelectorAll(`[data-finding="${number}"]`);
}

function mark(article, name, number) {
  for (const part of article.querySelectorAll(`.${name}`)) part.classList.remove(name);
  article.classList.toggle(`has-${name}`, Boolean(number));
  if (!number) return;
  for (const part of parts(article, number)) part.classList.add(name);
}

function showView(article, index) {
  for (const view of article.querySelectorAll(".view")) view.hidden = view.dataset.view !== index;
  for (const button of article.querySelectorAll(".strip button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === index));
  }
}

function choose(article, number) {
  for (const other of document.querySelectorAll("article[data-chosen]")) {
    mark(other, "chosen", null);
    delete other.dataset.chosen;
  }
  for (const tag of document.querySelectorAll(".tag[aria-current]")) tag.removeAttribute("aria-current");
  if (!number) return;
  mark(article, "chosen", number);
  article.dataset.chosen = number;
  for (const tag of article.querySelectorAll(".tag.chosen")) tag.setAttribute("aria-current", "true");
  const row = article.querySelector(`tr[data-finding="${number}"]`);
  if (row.dataset.view) showView(article, row.dataset.view);
}

function setAddress(address) {
  history.replaceState(null, "", address || location.pathname + location.search);
}

function followAddress() {
  const [anchor, tagIndex] = location.hash.slice(1).split("/");
  const article = anchor && document.getElementById(anchor);
  if (!article || tagIndex === undefined) return;
  const tag = article.querySelector(`.tag[data-tag="${CSS.escape(tagIndex)}"]`);
  if (!tag) return;
  choose(article, tag.dataset.finding);
  article.scrollIntoView();
}

function toggle(article, part) {
  const number = part.dataset.finding;
  if (article.dataset.chosen === number) {
    choose(article, null);
    setAddress("");
    return;
  }
  const tag = part.matches(".tag") ? part : article.querySelector(`.tag[data-finding="${number}"]`);
  // A shape is clicked on the view that shows it: stay there.
  const view = part.closest(".view")?.dataset.view;
  choose(article, number);
  if (view) showView(article, view);
  setAddress(tag.getAttribute("href"));
}

function placeTip(target) {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const box = target.getClientRects()[0];
  const left = Math.min(box.left, innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  target.setAttribute("aria-describedby", "tip");
}

function point(event) {
  const part = event.target.closest?.("[data-finding]");
  const article = part?.closest("article");
  if (!article) return;
  mark(article, "lit", part.dataset.finding);
  if (part.dataset.tip) placeTip(part);
}

function unpoint(event) {
  const part = event.target.closest?.("[data-finding]");
  const article = part?.closest("article");
  if (!article) return;
  mark(article, "lit", null);
  part.removeAttribute("aria-describedby");
  tip.hidden = true;
}

function click(event) {
  const article = event.target.closest("article");
  if (!article) return;
  const control = event.target.closest(".controls button");
  const part = event.target.closest("[data-finding]");
  if (control?.matches(".bare")) {
    const bare = article.classList.toggle("is-bare");
    control.setAttribute("aria-pressed", String(bare));
  } else if (control) {
    showView(article, control.dataset.view);
  } else if (part) {
    event.preventDefault();
    toggle(article, part);
  }
}

function press(event) {
  if (event.key === "Escape") {
    choose(null, null);
    tip.hidden = true;
    setAddress("");
  } else if ((event.key === "Enter" || event.key === " ") && event.target.matches?.("path")) {
    event.preventDefault();
    toggle(event.target.closest("article"), event.target);
  }
}

for (const type of ["pointerover", "focusin"]) document.addEventListener(type, point);
for (const type of ["pointerout", "focusout"]) document.addEventListener(type, unpoint);
document.addEventListener("click", click);
document.addEventListener("keydown", press);
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
addEventListener("hashchange", followAddress);
followAddress();
