"""Deep recursion: 3000 frames down and up again."""

import sys

import report


def down(n):
    if n == 0:
        return 0
    return 1 + down(n - 1)


def main(scale):
    sys.setrecursionlimit(10000)
    return sum(down(3000) for _ in range(int(7000 * scale)))


if __name__ == "__main__":
    print(main(report.scale()))
