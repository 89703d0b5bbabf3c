"""A million calls and no more: what a span takes in the trace, and how soon the trace is there."""

import report


def leaf(x):
    return x + 1


def branch(x):
    return leaf(x) + leaf(x + 1) + leaf(x + 2)


def main(scale):
    return sum(branch(i) for i in range(int(250000 * scale)))


if __name__ == "__main__":
    print(main(report.scale()))
