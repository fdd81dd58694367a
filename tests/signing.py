"""Signers written apart from the product's own code, with nothing but the standard library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from datetime import UTC, datetime
from urllib.parse import quote, urlencode


def _q(text: str) -> str:
    return quote(text, safe="-_.~")


def sigv4(
    key: str, secret: str, body: str, now_us: int, host: str = "testserver", service: str = "ec2"
) -> dict[str, str]:
    """The headers of a signed POST to `/`."""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    signed = {"content-type": "application/x-www-form-urlencoded; charset=utf-8", "host": host, "x-amz-date": stamp}
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body.encode()).hexdigest()}"
    scope = f"{day}/us-east-1/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    mixed = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        mixed = hmac.new(mixed, part.encode(), "sha256").digest()
    signature = hmac.new(mixed, text.encode(), "sha256").hexdigest()
    told = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": told}


def presigned(key: str, secret: str, pairs: dict[str, str], now_us: int, seconds: int = 900) -> str:
    """The query of a GET of `/` that is signed in the query itself."""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    scope = f"{day}/us-east-1/ec2/aws4_request"
    signed = {
        **pairs,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{_q(name)}={_q(value)}" for name, value in sorted(signed.items()))
    canonical = f"GET\n/\n{query}\nhost:testserver\n\nhost\n{hashlib.sha256(b'').hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    mixed = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        mixed = hmac.new(mixed, part.encode(), "sha256").digest()
    return f"{query}&X-Amz-Signature={hmac.new(mixed, text.encode(), 'sha256').hexdigest()}"


def acs_v1(key: str, secret: str, action: str, now_us: int, method: str = "POST", **given: str) -> dict[str, str]:
    """All parameters of a signed request, the signature among them."""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    params = {
        "Action": action,
        "Version": "2014-05-26",
        "Format": "JSON",
        "RegionId": "cn-hangzhou",
        "AccessKeyId": key,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureType": "",
        "SignatureVersion": "1.0",
        "SignatureNonce": str(uuid.uuid4()),
        "Timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **given,
    }
    text = f"{method}&%2F&{_q('&'.join(f'{_q(k)}={_q(v)}' for k, v in sorted(params.items())))}"
    signature = base64.b64encode(hmac.new(f"{secret}&".encode(), text.encode(), "sha1").digest()).decode()
    return {**params, "Signature": signature}


def form(action: str, **given: str) -> str:
    """A body of the EC2 query protocol; `__` in a name stands for a dot."""
    pairs = {"Action": action, "Version": "2016-11-15", **{k.replace("__", "."): v for k, v in given.items()}}
    return urlencode(pairs)
