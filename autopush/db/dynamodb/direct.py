"""Requests to DynamoDB without botocore: a tenth of what one costs with it.

botocore builds and signs the first requests. What it makes of them is compared with what we would
have made (:meth:`Signer.agrees`): where it is the same, to the last digit of the signature, we make
the next ones ourselves. Where it isn't (another way of signing, a header we don't know), all stays
with botocore. Either way they travel through :mod:`~autopush.db.dynamodb.http`, and botocore keeps
finding the endpoint, the region and the credentials, which it also renews.

Only operations on items are made here: their parameters, as the low-level client takes them, are
what goes over the wire (but for binary values), and so are their answers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from typing import Any, NamedTuple

import orjson
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from autopush import clock
from autopush.db.dynamodb.http import Address, ThinTransport, address_of, split_url

OPERATIONS = {
    "batch_get_item": "BatchGetItem",
    "delete_item": "DeleteItem",
    "get_item": "GetItem",
    "put_item": "PutItem",
    "query": "Query",
    "update_item": "UpdateItem",
}
"""What is done here, by the client's name."""

TARGET = "DynamoDB_20120810"

OURS = frozenset(
    {
        "authorization", "content-length", "content-type", "host", "user-agent", "x-amz-date",
        "x-amz-security-token", "x-amz-target",
    }
)  # fmt: skip
"""Headers that we send, too."""

OPTIONAL = frozenset({"amz-sdk-invocation-id", "amz-sdk-request"})
"""Headers of botocore that only tell about its retries."""

REFUSED = frozenset(
    {
        "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId",
        "InvalidSignatureException", "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)  # fmt: skip
"""Error codes of a request whose signature is not accepted: nothing was done."""

_AUTHORIZATION = re.compile(
    "AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request,"
    " SignedHeaders=[a-z0-9;-]+, Signature=[0-9a-f]{64}"
)


class Learned(NamedTuple):
    """What botocore's requests have in common."""

    address: Address
    url: str
    region: str
    service: str
    content_type: str
    user_agent: str


class Signer:
    """Makes requests as botocore does (Signature Version 4).

    :param credentials: botocore's, which may change all the time
    """

    def __init__(self, learned: Learned, credentials: Any) -> None:
        self.learned = learned
        self._credentials = credentials
        self._key: tuple[tuple[str, str], bytes] = ("", ""), b""
        self._second = 0, ""

    def request(self, operation: str, body: bytes) -> bytes:
        """The request as HTTP/1.1, signed for this moment.

        :param operation: DynamoDB's name
        """
        learned = self.learned
        target, now = f"{TARGET}.{operation}", self._now()
        authorization, token = self._sign(target, body, now)
        security = f"X-Amz-Security-Token: {token}\r\n" if token else ""
        return (
            f"POST / HTTP/1.1\r\nHost: {learned.address.authority}\r\n"
            f"Content-Type: {learned.content_type}\r\nContent-Length: {len(body)}\r\n"
            f"User-Agent: {learned.user_agent}\r\nX-Amz-Target: {target}\r\nX-Amz-Date: {now}\r\n"
            f"{security}Authorization: {authorization}\r\n\r\n"
        ).encode("latin-1") + body

    def agrees(self, request: Any) -> bool:
        """Whether a prepared request of botocore is signed as we would sign it."""
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        if headers.keys() - OURS - OPTIONAL or request.method != "POST":
            return False
        target, now = headers.get("x-amz-target", ""), headers.get("x-amz-date", "")
        authorization, token = self._sign(target, _bytes(request.body), now)
        return (
            target.startswith(f"{TARGET}.")
            and headers["authorization"] == authorization
            and headers.get("x-amz-security-token", "") == token
        )

    def _now(self) -> str:
        now = int(clock.now())
        second, text = self._second
        if second != now:
            text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._second = now, text
        return text

    def _sign(self, target: str, body: bytes, now: str) -> tuple[str, str]:
        """The Authorization header, and the token of temporary credentials (may be empty)."""
        learned = self.learned
        access_key, secret, token = self._credentials.get_frozen_credentials()[:3]
        headers = (
            f"content-type:{learned.content_type}\nhost:{learned.address.authority}\n"
            f"x-amz-date:{now}\n"
        )
        names = "content-type;host;x-amz-date;"
        if token:
            headers += f"x-amz-security-token:{token}\n"
            names += "x-amz-security-token;"
        headers += f"x-amz-target:{target}\n"
        names += "x-amz-target"
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"POST\n/\n\n{headers}\n{names}\n{digest}"
        scope = f"{now[:8]}/{learned.region}/{learned.service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}"
        signature = hmac.digest(self._signing_key(secret, now[:8]), text.encode(), "sha256").hex()
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={access_key}/{scope},"
            f" SignedHeaders={names}, Signature={signature}"
        )
        return authorization, token or ""

    def _signing_key(self, secret: str, day: str) -> bytes:
        made_of, key = self._key
        if made_of != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self.learned.region, self.learned.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (secret, day), key
        return key


def learn(request: Any) -> Learned | None:
    """What a prepared request of botocore tells; None if it isn't of the kind we know."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    origin, path = split_url(request.url)
    if match is None or path != "/":
        return None
    return Learned(
        address_of(origin),
        request.url,
        match["region"],
        match["service"],
        headers.get("content-type", ""),
        headers.get("user-agent", ""),
    )


class DirectClient:
    """A boto3 client whose operations on items may also be called past it.

    :param client: boto3's; has every other attribute of this object
    :param credentials: those it signs with
    """

    def __init__(self, client: Any, transport: ThinTransport, credentials: Any) -> None:
        self._client = client
        self._transport = transport
        self._credentials = credentials
        self._signer: Signer | None = None
        transport.observe = self._observe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_client"], name)

    def _observe(self, request: Any) -> None:
        """botocore sends something."""
        if self._signer is not None or self._credentials is None:
            return
        learned = learn(request)
        if learned is not None:
            signer = Signer(learned, self._credentials)
            if signer.agrees(request):
                self._signer = signer

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation of the client.

        :raises Exception: as the client does
        """
        signer = self._signer
        if signer is not None and operation in OPERATIONS:
            try:
                body = orjson.dumps(parameters)
            except TypeError:
                pass  # a binary value: botocore can
            else:
                return self._send(signer, operation, parameters, body)
        answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        return answer

    def _send(
        self, signer: Signer, operation: str, parameters: dict[str, Any], body: bytes
    ) -> dict[str, Any]:
        name, learned = OPERATIONS[operation], signer.learned
        request = signer.request(name, body)
        status, _, content = self._transport.exchange(learned.address, learned.url, request)
        if status == 200:
            return read_answer(content)
        error = read_error(status, content)
        if error["Error"]["Code"] in REFUSED:
            # botocore may know better; and we'll look again at how it does it.
            self._signer = None
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
            return answer
        raise ClientError(error, name)


def read_answer(content: bytes) -> dict[str, Any]:
    """The answer as the client gives it.

    :raises botocore.parsers.ResponseParserError: it is no JSON object
    """
    try:
        answer = orjson.loads(content)
    except ValueError as error:
        raise ResponseParserError("the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ResponseParserError("the answer is no object")
    if b'"B"' in content or b'"BS"' in content:
        _decode_binary(answer)
    return answer


def read_error(status: int, content: bytes) -> dict[str, Any]:
    """A refusal, as in ``ClientError.response``."""
    try:
        answer = orjson.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    code = str(answer.pop("__type", "")).rpartition("#")[2].partition(":")[0]
    message = str(answer.pop("message", None) or answer.pop("Message", None) or "")
    return {
        **answer,
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }


def _decode_binary(value: Any) -> None:
    """Replace the Base64 of binary values in place. (Names of attributes never hold a text.)"""
    if isinstance(value, list):
        for member in value:
            _decode_binary(member)
    elif isinstance(value, dict):
        for name, member in value.items():
            if name == "B" and isinstance(member, str):
                value[name] = base64.b64decode(member)
            elif name == "BS" and isinstance(member, list):
                value[name] = [base64.b64decode(text) for text in member]
            else:
                _decode_binary(member)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode("latin-1")


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""
