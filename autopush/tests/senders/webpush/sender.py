"""Sends what each line of standard input asks for with the package ``webpush``, which makes the
message and leaves it to others to send it, and answers each with a line of what came back.
``../programs.py`` tells what both look like."""

import json
import sys
from base64 import urlsafe_b64decode
from io import BytesIO

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from webpush import WebPush, WebPushSubscription


def pem_files(private):
    """The key as the package wants it."""
    number = int.from_bytes(urlsafe_b64decode(private + "="))
    key = ec.derive_private_key(number, ec.SECP256R1())
    return BytesIO(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    ), BytesIO(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def send(order):
    private, public = pem_files(order["vapid"]["private"])
    subscriber = order["vapid"]["subject"].removeprefix("mailto:")
    subscription = WebPushSubscription.model_validate(order["subscription"])
    made = WebPush(private, public, subscriber, order["ttl"]).get(order["text"], subscription)
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            str(subscription.endpoint), data=made.encrypted, headers=dict(made.headers)
        )
    headers = {name.lower(): value for name, value in answer.headers.items()}
    said = "ok" if answer.ok else "error"
    return {"said": said, "status": answer.status_code, "headers": headers, "body": answer.text}


for line in sys.stdin:
    print(json.dumps(send(json.loads(line))), flush=True)
