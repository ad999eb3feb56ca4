"""Sends what each line of standard input asks for with the package ``pywebpush``, and answers each
with a line of what it says. ``../programs.py`` tells what both look like."""

import json
import sys

from pywebpush import WebPushException, webpush


def send(order):
    try:
        answer = webpush(
            order["subscription"],
            order["text"],
            vapid_private_key=order["vapid"]["private"],
            vapid_claims={"sub": order["vapid"]["subject"]},
            ttl=order["ttl"],
        )
        said = "ok"
    except WebPushException as error:
        said, answer = type(error).__name__, error.response
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return {"said": said, "status": answer.status_code, "headers": headers, "body": answer.text}


for line in sys.stdin:
    print(json.dumps(send(json.loads(line))), flush=True)
