"""Run the JSON Web Signature and Key vectors of Project Wycheproof against our token reader.

Not part of the test run: ``python tests/optional/check_wycheproof.py FOLDER``, where FOLDER holds
``json_web_signature_test.json`` and ``json_web_key_test.json`` of github.com/C2SP/wycheproof.
Fails when an invalid vector is accepted; prints which valid ones we choose to refuse.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from gatekeeper.facts import jwt_tokens
from gatekeeper.facts.jwks import ALGORITHMS, JwksError, parse_jwks

FILES = ("json_web_signature_test.json", "json_web_key_test.json")


def say(line: str) -> None:
    """Print one line."""
    sys.stdout.write(line + "\n")


def accepts(group: dict[str, Any], text: str) -> bool:
    """Tell whether the token is taken with the group's public keys (or its symmetric ones)."""
    keys = group.get("public") or group.get("private") or {}
    document = keys if "keys" in keys else {"keys": [keys]}
    try:
        found = parse_jwks(json.dumps(document).encode(), ALGORITHMS)
        token = jwt_tokens.open_token(text)
    except (JwksError, jwt_tokens.TokenRefusedError):
        return False
    key = found.find(token.kid, token.header["alg"])
    return key is not None and jwt_tokens.is_signed_by(token, key)


def main() -> int:
    """Return how many invalid vectors were accepted."""
    folder = Path(sys.argv[1])
    counts: Counter[tuple[str, bool]] = Counter()
    for name in FILES:
        for group in json.loads((folder / name).read_text())["testGroups"]:
            for test in group["tests"]:
                text = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
                accepted = accepts(group, text)
                counts[test["result"], accepted] += 1
                if accepted != (test["result"] == "valid"):
                    words = "ACCEPTED, INVALID" if accepted else "refused, though valid"
                    say(f"{name} {test['tcId']} {group['comment']} {test['comment']}: {words}")
    for (result, accepted), count in sorted(counts.items()):
        say(f"{result}: {count} {'accepted' if accepted else 'refused'}")
    return counts["invalid", True]


if __name__ == "__main__":
    sys.exit(min(main(), 1))
