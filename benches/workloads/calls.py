"""Call-heavy Python: small methods, recursion, and work on dicts and lists."""

import report


class Vector:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def plus(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def dot(self, other):
        return self.x * other.x + self.y * other.y


class Counter:
    def __init__(self):
        self.counts = {}
        self.order = []

    def see(self, word):
        seen = self.counts.get(word)
        if seen is None:
            self.order.append(word)
            seen = 0
        self.counts[word] = seen + 1

    def most(self):
        return max(self.counts.items(), key=value)


def value(item):
    return item[1]


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def walk(depth):
    at, total = Vector(0, 0), 0
    for i in range(depth):
        at = at.plus(Vector(i & 3, 1))
        total += at.dot(at) & 7
    return total


def main(scale):
    words = ["w%d" % (i * i % 97) for i in range(400)]
    total = 0
    for _ in range(int(8000 * scale)):
        total += fib(15)
        total += walk(300)
        counter = Counter()
        for word in words:
            counter.see(word)
        total += counter.most()[1]
        total += len(sorted(counter.order, key=len))
    return total


if __name__ == "__main__":
    print(main(report.scale()))
