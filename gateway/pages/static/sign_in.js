// A sign-in link carries its keys behind the #, which no server and no log ever sees.
"use strict";

const linked = new URLSearchParams(location.hash.slice(1));
const form = document.getElementById("sign-in");
if (linked.has("key")) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.credential.value = linked.get("key");
  form.elements.call_key.value = linked.get("calls") ?? "";
  form.elements.linked.value = "1";
  form.submit();
} else if (form.dataset.signedIn) {
  location.replace(form.dataset.signedIn);
}
