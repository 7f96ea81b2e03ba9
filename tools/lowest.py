"""Print constraints for pip: the lowest versions that the requirements in settings.ini admit."""

from configparser import ConfigParser
from pathlib import Path


def lowest(settings_file: Path) -> list[str]:
    """`keras>=3.12` becomes `keras==3.12`, which is 3.12.0. Not of `dev`: what only tests and builds may be new."""
    parser = ConfigParser()
    parser.read(settings_file, encoding="utf-8")
    settings = parser["DEFAULT"]
    lists = [name for name in settings if name.endswith("requirements") and name != "dev_requirements"]
    return sorted({one.replace(">=", "==") for name in lists for one in settings[name].split()})


if __name__ == "__main__":
    print(*lowest(Path(__file__).parent.parent / "settings.ini"), sep="\n")
