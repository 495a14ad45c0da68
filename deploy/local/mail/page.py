"""The mails as pages for a browser. Whatever came by mail is escaped, or locked into a frame that may run nothing."""

from html import escape

from .mailbox import Mail

# A frame's own document inherits this: no script, no request to anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .4rem .6rem; vertical-align: top }
tr { border-bottom: 1px solid #ddd } pre { white-space: pre-wrap }
iframe { width: 100%; height: 40rem; border: 1px solid #ddd }
"""


def listing(mails: list[Mail]) -> str:
    """Return the page of all these mails."""
    rows = "".join(
        f"<tr><td>{escape(mail.received_at)}</td><td>{escape(', '.join(mail.to))}</td>"
        f"<td><a href='messages/{escape(mail.id)}/page'>{escape(mail.subject) or '(no subject)'}</a></td></tr>"
        for mail in mails
    )
    head = "<tr><th>Received</th><th>To</th><th>Subject</th></tr>"
    return _page("Mails", f"<h1>Mails</h1><table>{head}{rows}</table>" if mails else "<h1>No mail yet</h1>")


def reading(mail: Mail) -> str:
    """Return the page of one mail."""
    shown = {"From": mail.sender, "To": ", ".join(mail.to), "Received": mail.received_at, "Message-ID": mail.message_id}
    if mail.warnings:
        shown["Unusual headers"] = ", ".join(mail.warnings)
    rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in shown.items())
    html = f'<h2>HTML</h2><iframe sandbox srcdoc="{escape(mail.html)}"></iframe>' if mail.html else ""
    text = f"<h2>Text</h2><pre>{escape(mail.text)}</pre>" if mail.text else ""
    links = "<p><a href='../../'>All mails</a> · <a href='raw'>Raw</a></p>"
    return _page(mail.subject, f"{links}<h1>{escape(mail.subject)}</h1><table>{rows}</table>{html}{text}")


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<body>{body}</body></html>"
    )
