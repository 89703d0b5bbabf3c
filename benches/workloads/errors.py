"""Exceptions: raised some frames down, passed through, caught."""

import report


class Refused(Exception):
    pass


def parse(text):
    if text.endswith("7"):
        raise ValueError(text)
    return len(text)


def check(text):
    try:
        return parse(text)
    except ValueError as error:
        raise Refused(text) from error


def through(text):
    return check(text)


def attempt(text):
    try:
        return through(text)
    except Refused:
        return 0


def main(scale):
    texts = ["text %d" % i for i in range(1000)] + ["text %d7" % i for i in range(1000)]
    return sum(attempt(text) for _ in range(int(1600 * scale)) for text in texts)


if __name__ == "__main__":
    print(main(report.scale()))
