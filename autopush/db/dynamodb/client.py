"""The DynamoDB client and what its errors mean.

Low-level, one for all threads; each call is one attempt that ends within the time-outs below.
Who calls decides about further ones: see :func:`patient` for threads, and
:class:`autopush.db.dynamodb.store.DynamoStore`, which lets no thread wait.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.parsers import ResponseParserError

from autopush.constants import THREAD_POOL_SIZE
from autopush.db.dynamodb.direct import DirectClient
from autopush.db.dynamodb.http import use_thin_transport
from autopush.exceptions import StoreBusy, StoreError

CONNECT_TIMEOUT = 2
"""Seconds until an attempt gives up connecting."""

READ_TIMEOUT = 5
"""Seconds until an attempt gives up waiting for data; DynamoDB answers in milliseconds."""

DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each further attempt, at most; the cap of the back-off is the last one."""

DEADLINE = 8.0
"""Seconds from an operation's arrival after which its caller is told that it failed, and nothing
more of it is begun. A sender's request makes two operations, three at most."""

THROTTLING = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""Error codes that ask to come back later; nothing was done."""

NOT_SENT = (
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.ProxyConnectionError,
    boto.CredentialRetrievalError,
)
"""Failures before the request has left: nothing was done."""

INTERRUPTED = (
    boto.HTTPClientError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.SSLError,
    ResponseParserError,
    OSError,
)
"""Failures after which the operation may or may not have been done."""


class DynamoError(StoreError):
    """DynamoDB refused or failed for good.

    :ivar code: its error code, empty if it came to none
    """

    code = ""


class ConditionFailed(DynamoError):
    """The item was not as the request demands.

    :ivar item: what it was, if the request asked for that, there is one, and the server can tell
    :ivar unsure: whether an earlier attempt at the same request may have been carried out, so that
        this may be our own doing
    """

    code = "ConditionalCheckFailedException"
    item: dict[str, Any] | None = None
    unsure: bool = False


class TableMissing(DynamoError):
    """There is no such table (any more).

    :ivar table: its name; None if the request named several
    """

    code = "ResourceNotFoundException"
    table: str | None = None


class Throttled(StoreBusy):
    """Too many requests; another attempt makes sense, and nothing was done."""

    maybe_done = False


class Unavailable(StoreError):
    """DynamoDB failed or can't be reached; another attempt makes sense.

    :ivar maybe_done: whether this attempt may have been carried out nevertheless
    :ivar answered: whether DynamoDB said so itself
    """

    def __init__(self, text: str, maybe_done: bool, answered: bool = False) -> None:
        super().__init__(text)
        self.maybe_done = maybe_done
        self.answered = answered


TRY_AGAIN = (Throttled, Unavailable)
"""What another attempt may cure."""


class Call(Protocol):
    """One request: ``call("get_item", TableName=..., ...)``."""

    def __call__(self, operation: str, /, **parameters: Any) -> dict[str, Any]: ...


F = TypeVar("F", bound=Callable[..., Any])

UNSURE = "Unsure"
"""Member of an answer of :func:`patient`: an earlier attempt may have been carried out, so what
was there before the request may be our own doing."""


def checks_unsure(function: F) -> F:
    """Mark an operation that takes ``unsure=True``: an earlier attempt at it may have been
    carried out, so that a condition which no longer holds may be our own doing."""
    function.unsure_aware = True  # type: ignore[attr-defined]
    return function


def client_options(
    endpoint_url: str | None = None, region_name: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Keywords for boto3: which DynamoDB, with which credentials, within which limits.

    :param endpoint_url: where DynamoDB is; None: environment ``AWS_LOCAL_DYNAMODB``, else what
        boto3 finds. It gets the credentials ``Bogus``: one of one's own rarely checks them, but
        requests can't be signed without. (One that does can be given to boto3 itself, as
        environment ``AWS_ENDPOINT_URL_DYNAMODB``.)
    :param region_name: None: environment ``AWS_DEFAULT_REGION``, else ``us-east-1``
    :param kwargs: more of them, such as credentials
    """
    endpoint_url = endpoint_url or os.environ.get("AWS_LOCAL_DYNAMODB") or None
    if endpoint_url:
        kwargs.setdefault("aws_access_key_id", "Bogus")
        kwargs.setdefault("aws_secret_access_key", "Bogus")
        kwargs["endpoint_url"] = endpoint_url
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=THREAD_POOL_SIZE,
        parameter_validation=False,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # The same host name as ever, for firewalls that know it.
        account_id_endpoint_mode="disabled",
    )
    return {
        "region_name": region_name or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        "config": config,
        **kwargs,
    }


def make_client(thin: bool = False, **kwargs: Any) -> Any:
    """Build the client.

    :param thin: make requests as :mod:`autopush.db.dynamodb.direct` and
        :mod:`autopush.db.dynamodb.http` do, where that can be
    :param kwargs: as for :func:`client_options`
    """
    session = boto3.session.Session()
    options = client_options(**kwargs)
    client = session.client("dynamodb", **options)
    transport = use_thin_transport(client, os.environ.get("AWS_CA_BUNDLE")) if thin else None
    if transport is None:
        return client
    given = options.get("aws_access_key_id"), options.get("aws_secret_access_key")
    credentials = (
        Credentials(*given, options.get("aws_session_token"))
        if given[0] and given[1]
        else session.get_credentials()
    )
    return DirectClient(client, transport, credentials)


def caller(client: Any) -> Call:
    """One attempt a call, with the errors above instead of botocore's."""
    direct = client.call if isinstance(client, DirectClient) else None

    def call(operation: str, /, **parameters: Any) -> dict[str, Any]:
        try:
            if direct is not None:
                return direct(operation, parameters)
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
            return answer
        except Exception as error:
            raise translate(error, operation, parameters.get("TableName")) from error

    return call


def translate(error: Exception, operation: str, table: str | None = None) -> StoreError:
    """What botocore's error means to us."""
    if isinstance(error, boto.ClientError):
        return _refusal(error, operation, table)
    text = f"DynamoDB {operation}: {type(error).__name__}"
    if isinstance(error, NOT_SENT):
        return Unavailable(text, maybe_done=False)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return DynamoError("no AWS credentials: set them, or aws_ddb_endpoint")
    if isinstance(error, INTERRUPTED):
        return Unavailable(text, maybe_done=True)
    return DynamoError(text)


def _refusal(error: boto.ClientError, operation: str, table: str | None) -> StoreError:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    message = str(answer.get("Error", {}).get("Message", ""))[:200]
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"DynamoDB {operation}{f' on {table}' if table else ''}: {code} {message}".rstrip()
    if code in THROTTLING:
        return Throttled(text)
    if code == ConditionFailed.code:
        failed = ConditionFailed(text)
        failed.item = answer.get("Item") or None
        return failed
    if code == TableMissing.code:
        missing = TableMissing(text)
        missing.table = table
        return missing
    if status >= 500:
        return Unavailable(text, maybe_done=True, answered=True)
    refusal = DynamoError(text)
    refusal.code = code
    return refusal


def delays() -> Iterator[float]:
    """Seconds to wait before each further attempt, with the jitter that keeps nodes apart."""
    for delay in DELAYS:
        yield delay * random.uniform(0.5, 1)


def patient(call: Call, sleep: Callable[[float], Any] = time.sleep) -> Call:
    """Further attempts within one thread, for start-up, tools and tables.

    What another attempt finds is marked where an earlier one may have been carried out: see
    :data:`UNSURE` and :class:`ConditionFailed`.
    """

    def once(unsure: bool, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = call(operation, **parameters)
        except ConditionFailed as failed:
            failed.unsure = unsure
            raise
        return {**answer, UNSURE: True} if unsure else answer

    def again(operation: str, /, **parameters: Any) -> dict[str, Any]:
        unsure = False
        for delay in delays():
            try:
                return once(unsure, operation, parameters)
            except TRY_AGAIN as error:
                unsure = unsure or error.maybe_done
                sleep(delay)
        return once(unsure, operation, parameters)

    return again


def low_level_client(resource: Any) -> Any:
    """A client for the DynamoDB of a resource, be it ours or boto3's."""
    own = getattr(resource, "client", None)
    if own is not None:
        return own
    meta = resource.meta.client.meta
    return make_client(endpoint_url=meta.endpoint_url, region_name=meta.region_name)
