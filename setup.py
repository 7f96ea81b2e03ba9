"""Everything about the distribution stands in settings.ini; this file hands it to setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
parser = ConfigParser()
parser.read(root / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

# The readme is also the page on PyPI, where links relative to the repository lead nowhere.
readme = (root / "README.md").read_text(encoding="utf-8")
for opening, address in (
    ("](nbs/images/", f"https://raw.githubusercontent.com/{settings['user']}/{settings['repo']}/main/nbs/images/"),
    ("](nbs/", f"{settings['git_url']}/blob/main/nbs/"),
):
    readme = readme.replace(opening, f"]({address}")

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    author=settings["author"],
    url=settings["git_url"],
    project_urls={"Documentation": settings["doc_host"] + settings["doc_baseurl"]},
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=settings["keywords"].split(),
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
        *(f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13")),
    ],
    packages=["tripletloss"],
    # Said, so that an editable installation puts the whole folder on the path: nbdev finds its renderer in tools.
    package_dir={"": "."},
    package_data={"tripletloss": ["py.typed"]},
    # Where nbdev finds the page of each name, for these pages and for those of other packages.
    entry_points={"nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        name.removesuffix("_requirements"): settings[name].split()
        for name in settings
        if name.endswith("_requirements")
    },
)
