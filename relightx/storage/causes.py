"""Why S3 failed: what passes by itself, and what a person has to do about the rest."""

from http import HTTPStatus

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from relightx.storage.folder import WrongBytes

FOREIGN = (
    BotoCoreError,
    Boto3Error,
    ClientError,
    ResponseParserError,
    RetriesExceededError,
    S3DownloadFailedError,
    ConnectionError,
    TimeoutError,
)
"""Errors of the libraries below, which `explained` puts into our words."""

UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
"""No connection was made. Of an address that never answered, that will not pass."""

_PASSING = (
    WrongBytes,
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    FlexibleChecksumError,
    ResponseParserError,  # the answer was damaged on its way
    RetriesExceededError,
    S3DownloadFailedError,  # the object was replaced while it was read
    ConnectionError,
    TimeoutError,
)
# Codes of answers below 500 after which the same request may work. The second half says that the
# bytes which arrived are not the bytes which were signed.
_PASSING_CODES = {
    *("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled"),
    *("TooManyRequests", "OperationAborted", "PreconditionFailed", "412"),
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("InvalidPart", "NoSuchUpload"),
}
_REFUSED_CODES = {
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "TokenRefreshRequired", "AllAccessDisabled", "AccountProblem"),
    *("401", "403", "Forbidden", "Unauthorized"),
}
_ELSEWHERE_CODES = {
    *("PermanentRedirect", "301", "307", "TemporaryRedirect", "AuthorizationHeaderMalformed"),
    *("IllegalLocationConstraintException",),
}
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)


def code_of(error: Exception) -> str:
    """The server's word for an error, such as "NoSuchKey"; "" for an error without an answer."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def passes(error: BaseException) -> bool:
    """Whether the same request may work a little later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
        return status >= 500 or status in passing or code_of(error) in _PASSING_CODES
    return isinstance(error, _PASSING)


def explained(error: Exception, url: str, endpoint: str, tries: int) -> OSError:
    """The error in one line: the URL, what happened at the last of so many tries, what to do."""
    code = code_of(error)
    if code == "NoSuchBucket":
        return missing_bucket(url, endpoint)
    if code in ("NoSuchKey", "404"):
        return FileNotFoundError(f"{url}: no such file")
    if code in _REFUSED_CODES:
        return PermissionError(
            f"{url}: {endpoint} refused access ({_words(error)}); check the credentials (--profile"
            " or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) and what they may do in this bucket"
        )
    if code in _ELSEWHERE_CODES:
        return OSError(f"{url}: the bucket is in another region ({_words(error)}); give --region")
    if isinstance(error, _NO_CREDENTIALS):
        return PermissionError(
            f"{url}: no credentials ({_words(error)}); give --profile, set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or read a public bucket with --unsigned"
        )
    if isinstance(error, UNREACHABLE):
        return OSError(
            f"{url}: {endpoint} cannot be reached ({_words(error)}); check --endpoint-url and"
            " the network"
        )
    if passes(error):
        return OSError(
            f"{url}: {endpoint} failed {tries} times, at last with: {_words(error)}; try again when"
            " the server is well, or allow it more time (deadline_s)"
        )
    return OSError(f"{url}: {_words(error)}")


def missing_bucket(url: str, endpoint: str) -> OSError:
    """The error of a bucket that does not exist; not FileNotFoundError, which is for files."""
    bucket = url.removeprefix("s3://").split("/")[0]
    return OSError(
        f"{url}: there is no bucket {bucket!r} at {endpoint}; make it first, or check its name and"
        " --endpoint-url"
    )


def _words(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        return " ".join(f"{said.get('Code', '')}: {said.get('Message', '')}".split()).strip(": ")
    inner = error.last_exception if isinstance(error, RetriesExceededError) else error
    return " ".join(str(inner).split()) or type(inner).__name__
