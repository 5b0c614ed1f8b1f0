"""What pyproject.toml cannot say: packages from two places, found by themselves.

`conf/` stands at the top of the repository, where people look for it, and ships as `slm.conf`.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("src"), "slm.conf"],
    package_dir={"": "src", "slm.conf": "conf"},
    package_data={
        "slm.chat": ["*.jinja"],
        "slm.conf": ["**/*.yaml"],
        "slm.data": ["*.txt"],
        "slm.data.store": ["*.jinja"],
        "slm.models.kernels": ["*.c", "*.h"],
        "slm.serve": ["page/*"],
        "slm.study.report": ["*.jinja", "*.css", "*.js"],
        "slm.suggest": ["*.txt"],
        "slm.weights": ["*.md"],
    },
)
