"""The page at `/`: try a picture, and what the server offers. One document; nothing is fetched from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

__all__ = ["render_page"]

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>edgewright</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: 14px; }}
pre {{ background: #8882; padding: 1rem; overflow: auto; }}
img {{ max-width: 16rem; max-height: 16rem; display: block; margin: 1rem 0; }}
td, th {{ text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }}
</style>
<h1>edgewright</h1>
<p>{description} <a href="/openapi.json">OpenAPI document</a>.</p>
<form>
<p><label>Picture <input type="file" name="file" accept="image/*" required></label></p>
<p><label>Model <input name="model" placeholder="if there are several"></label></p>
<p><label>Token <input name="token" type="password" autocomplete="off" placeholder="if there is one"></label></p>
<p><button>Classify</button></p>
</form>
<img alt="" hidden>
<pre id="answer" hidden></pre>
<table><thead><tr><th>Request<th>What for</thead><tbody>{rows}</tbody></table>
<script>
const form = document.querySelector("form"), image = document.querySelector("img");
const answer = document.querySelector("#answer");
form.addEventListener("submit", async event => {{
  event.preventDefault();
  const file = form.file.files[0];
  image.src = URL.createObjectURL(file);
  image.hidden = answer.hidden = false;
  answer.textContent = "…";
  const query = form.model.value ? "?model=" + encodeURIComponent(form.model.value) : "";
  const headers = form.token.value ? {{ Authorization: "Bearer " + form.token.value }} : {{}};
  try {{
    const response = await fetch("/classify" + query, {{ method: "POST", body: file, headers }});
    answer.textContent = JSON.stringify(await response.json(), null, 2);
  }} catch (error) {{
    answer.textContent = String(error);
  }}
}});
</script>
</html>
"""


def render_page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document's operations, with a form for `/classify`."""
    rows = "".join(
        f"<tr><td><code>{method.upper()} {escape(path)}</code><td>{escape(operation['summary'])}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return _PAGE.format(description=escape(document["info"]["description"]), rows=rows)
