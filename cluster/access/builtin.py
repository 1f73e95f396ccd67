"""Policies that every cluster has: never stored, never changed. To the cluster they are text, in S3's policy language."""

import json
from collections.abc import Mapping
from typing import Any


def _allow(*actions: str) -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": ["*"]}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


BUILT_IN: Mapping[str, str] = {
    "readonly": _allow("s3:Get*", "s3:List*"),
    "readwrite": _allow("s3:*"),
}
