"""The consent page of the authorization server, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Netatmo (simulated)</title></head>
<body>
<h1>Allow this application to use your data?</h1>
<p>Application {client}, scopes {scopes}. This cloud is simulated.</p>
<p role="alert">{alert}</p>
<form method="post" action="/oauth2/authorize">
{hidden}
<p><label>E-mail <input name="user" value="{user}"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><button name="decision" value="allow">Yes, I accept</button>
<button name="decision" value="deny">No</button></p>
</form>
</body></html>
"""
_OWN = ("user", "password", "decision")


def page(params: Mapping[str, str], *, alert: str = "") -> str:
    """The form; the authorize request travels along in hidden fields."""
    hidden = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in params.items()
        if name not in _OWN
    )
    return _PAGE.format(
        client=escape(params.get("client_id", "")),
        scopes=escape(params.get("scope") or "read_station"),
        alert=escape(alert),
        hidden=hidden,
        user=escape(params.get("user", "")),
    )
