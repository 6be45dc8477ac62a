// Keeps the lists of a page current. The server sends rows of HTML in which everything is escaped; this file puts them on top,
// knows a row by its id, and drops the oldest. Without JavaScript the pages show what they showed when they were loaded.
"use strict";

(() => {
  const root = document.querySelector("[data-stream]");
  if (root === null) return;

  const RETRY_MILLISECONDS = 5000;
  const lists = [...root.querySelectorAll("[data-live]")];
  const longest = Number(root.dataset.rows);
  const state = root.querySelector("[data-stream-state]");
  const toggle = root.querySelector("[data-stream-toggle]");
  let after = root.dataset.after;
  let source = null;
  let retry = 0;
  let paused = false;

  function show(name, text) {
    state.dataset.streamState = name;
    state.textContent = text;
  }

  function insert(list, html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    const rows = [...template.content.children].filter((row) => document.getElementById(row.id) === null);
    if (rows.length === 0) return;
    for (const row of rows) row.classList.add("new");
    list.prepend(...rows);
    while (list.children.length > longest) list.lastElementChild.remove();
    root.querySelector(`[data-empty="${list.dataset.live}"]`)?.remove();
  }

  function open() {
    if (source !== null || paused || document.hidden) return;
    const address = new URL(root.dataset.stream, location.href);
    if (after) address.searchParams.set("after", after);
    source = new EventSource(address);
    source.addEventListener("open", () => show("live", "Live"));
    source.addEventListener("error", failed);
    for (const list of lists) {
      source.addEventListener(list.dataset.live, (event) => {
        after = event.lastEventId || after;
        insert(list, JSON.parse(event.data));
      });
    }
  }

  function failed() {
    if (source.readyState === EventSource.CLOSED) {
      // The server refused: it has too many live pages, or it started again and asks for its token.
      close();
      retry = setTimeout(open, RETRY_MILLISECONDS);
      show("waiting", "Not live: trying again");
    } else {
      show("waiting", "Not live: connecting again");
    }
  }

  function close() {
    clearTimeout(retry);
    if (source !== null) source.close();
    source = null;
  }

  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      close();
      show("paused", "Paused");
    } else {
      show("waiting", "Connecting");
      open();
    }
  });

  // A page that nobody sees holds no stream: a browser opens only six connections to one server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);

  toggle.hidden = false;
  show("waiting", "Connecting");
  open();
})();
