"""Country codes that files may name: ISO 3166-1 alpha-2, and what people write instead."""

from __future__ import annotations

import re
from typing import Final

COUNTRIES: Final = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR
    BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ
    EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW
    GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY
    KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
    MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG
    TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM
    ZW XK
    """.split()  # noqa: SIM905 - 250 quoted literals would hide the table
)
"""The 249 codes of ISO 3166-1, and ``XK`` (Kosovo), which address databases use for want of one."""

_INSTEAD: Final = {"UK": "GB", "EL": "GR", "SU": "RU", "AN": "CW", "KS": "XK", "TP": "TL"}
_SUBDIVISION: Final = re.compile(r"([A-Z]{2})-[A-Z0-9]{1,3}", re.ASCII)


def country_problem(code: str) -> str | None:
    """Tell in a sentence why ``code`` is no ISO 3166-1 alpha-2 code; ``None`` when it is one."""
    if code in COUNTRIES:
        return None
    upper = code.strip().upper()
    meant = upper if upper in COUNTRIES else _INSTEAD.get(upper)
    hint = f"; did you mean `{meant}`?" if meant else ", such as `CU`."
    return f"`{code[:20]}` is not an ISO 3166-1 alpha-2 country code{hint}"


def subdivision_problem(code: str) -> str | None:
    """Tell in a sentence why ``code`` has not the form of ISO 3166-2; ``None`` when it has."""
    match = _SUBDIVISION.fullmatch(code)
    if match is None:
        return f"`{code[:20]}` is not an ISO 3166-2 code, such as `UA-43`."
    return country_problem(match[1])
