"""How often studies without findings are drawn (VividMed, section on training; spec 5.5).

Most studies of MIMIC-CXR have no finding. The paper takes none out: it draws them less often, with
an expected share of 0.2 of the draws in stage 2 and of 0.05 in stage 3.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_ABNORMALITY = ("No Finding", "Support Devices", "Pleural Other")
"""Labels of CheXpert and NegBio that the paper maps to no abnormality of the taxonomy."""


def has_findings(labels: Mapping[str, int], labeler: str = "chexpert") -> bool:
    """Whether a study of MIMIC-CXR has an abnormality that is labeled present.

    Args:
        labels: of the study, as the `studies` table has them: `chexpert:Edema` and 1, 0 or -1.
        labeler: whose labels count. The paper labeled its cleaned reports anew.
    """
    prefix = f"{labeler}:"
    return any(
        value == 1 and name.startswith(prefix) and name.removeprefix(prefix) not in _NO_ABNORMALITY
        for name, value in labels.items()
    )


def weight_without_findings(share: float, with_findings: int, without_findings: int) -> float:
    """The weight of each study without findings, where each one with findings has 1.

    Draws with these weights, with replacement, have the expected share of studies without.

    Args:
        share: at least 0 and less than 1.
        with_findings: how many studies there are with findings.
        without_findings: how many without; at least 1.

    Returns:
        share * with_findings / ((1 - share) * without_findings).
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share} of studies without findings cannot be drawn")
    return share * with_findings / ((1 - share) * without_findings)
