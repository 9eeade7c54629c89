"""CITATION.cff names this version, this licence and the paper."""

import tomllib

import yaml
from conftest import ROOT

import psr_lib

CITED = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_and_licence_are_the_packages():
    assert str(CITED["version"]) == PROJECT["version"] == psr_lib.__version__
    assert CITED["license"] == PROJECT["license"]


def test_the_paper_is_a_reference():
    (paper,) = CITED["references"]
    assert paper["title"] == "Process-based Self-Rewarding Language Models"
    assert len(paper["authors"]) == 7 and paper["identifiers"][0]["value"] == "arXiv:2503.03746"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"{one['family-names']}, {one['given-names']}" in readme for one in paper["authors"])
    assert paper["title"] in readme
