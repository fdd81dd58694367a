"""A tenant's scripts against both cloud dialects of a hand-driven yard."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from httpx import Response
from starlette.testclient import TestClient

import signing
from api_in_hand import ApiInHand

RUN = {"ImageId": "ami-host", "InstanceType": "rtx4090-quarter", "MinCount": "1", "MaxCount": "1"}
ECS_RUN = {"ImageId": "ubuntu_22_04", "InstanceType": "ecs.rtx4090-quarter", "Amount": "1"}


class Cloud:
    """A tenant's access key, and both dialects signed with it."""

    def __init__(self, api: ApiInHand, tenant: str, role: str = "member") -> None:
        made = api.operator.post("/v1/access-keys", json={"user": "ann", "role": role, "tenant": tenant}).json()
        self.key, self.secret = made["id"], made["secret"]
        self.api = api
        self.http = TestClient(api.app, raise_server_exceptions=False)

    def now_us(self) -> int:
        return self.api.hand.yard.clock.now_us()

    def ec2(self, action: str, service: str = "ec2", call: str | None = None, **given: str) -> Response:
        """`call` is what an SDK names it by."""
        return self.post(signing.form(action, **given), service, call)

    def post(self, body: str, service: str = "ec2", call: str | None = None) -> Response:
        headers = signing.sigv4(self.key, self.secret, body, self.now_us(), service=service)
        headers |= {} if call is None else {"amz-sdk-invocation-id": call}
        return self.http.post("/", content=body.encode(), headers=headers)

    def ecs(self, action: str, **given: str) -> Response:
        return self.http.post("/", params=self.signed(action, **given))

    def signed(self, action: str, **given: str) -> dict[str, str]:
        return signing.acs_v1(
            self.key, self.secret, action, self.now_us(), **{k.replace("__", "."): v for k, v in given.items()}
        )


def code(answer: Response) -> str:
    """The dialect's code of a refusal."""
    if answer.headers["content-type"].startswith("application/json"):
        return str(answer.json()["Code"])
    found = ET.fromstring(answer.content).find(".//{*}Code")
    assert found is not None, answer.text
    return str(found.text)


def ids(answer: Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return re.findall(r"<instanceId>(i-\w+)</instanceId>", answer.text)


def states(answer: Response) -> list[str]:
    return re.findall(r"<instanceState><code>\d+</code><name>([\w-]+)</name>", answer.text)
