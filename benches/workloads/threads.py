"""Forty threads that call small functions."""

import threading

import report


def leaf(x):
    return x & 0xFF


def branch(x):
    return leaf(x) + leaf(x + 1) + len(str(x))


def worker(results, rounds):
    total = 0
    for i in range(rounds):
        total += branch(i)
    results.append(total)


def main(scale):
    results = []
    rounds = int(900000 * scale)
    threads = [threading.Thread(target=worker, args=(results, rounds // 4)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


if __name__ == "__main__":
    print(main(report.scale()))
