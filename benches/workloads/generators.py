"""Generators in a chain, and as coroutines that are sent values."""

import report


def numbers(n):
    for i in range(n):
        yield i


def even(items):
    for item in items:
        if item & 1 == 0:
            yield item


def squares(items):
    for item in items:
        yield item * item


def nested(depth):
    if depth:
        yield from nested(depth - 1)
    yield depth


def main(scale):
    total = 0
    for _ in range(int(900 * scale)):
        total += sum(squares(even(numbers(30000))))
        total += sum(sum(nested(12)) for _ in range(300))
    return total


if __name__ == "__main__":
    print(main(report.scale()))
