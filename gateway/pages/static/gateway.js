// What every page does: times in the reader's own zone, and buttons that copy.
"use strict";

// Of this year without the year: a line of the list has little room.
const thisYear = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit" };
const anyYear = { dateStyle: "medium", timeStyle: "medium" };

function localTimes(root) {
  const year = new Date().getFullYear();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.dateTime;
      time.textContent = at.toLocaleString(undefined, at.getFullYear() === year ? thisYear : anyYear);
    }
  }
}

document.addEventListener("click", async (event) => {
  const id = event.target instanceof HTMLElement ? event.target.dataset.copy : undefined;
  if (!id) return;
  await navigator.clipboard.writeText(document.getElementById(id).textContent);
  event.target.textContent = "Copied";
});

document.addEventListener("htmx:afterSwap", (event) => localTimes(event.target));
// An error's page part is shown in the place where the answer would have stood.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400 && event.detail.xhr.status !== 401) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});
localTimes(document);
