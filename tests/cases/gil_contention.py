"""Another thread runs Python beside the one that answers requests.

Injected: a thread that counts words in a loop in Python. Each native layer of the model gives the GIL back and has to wait for
it again, for up to the interpreter's switch interval of 5 ms. With less strength the thread rests between its rounds. Right,
because the step is as much longer as it waits for the GIL; the twin counts the same words in a process of its own.
"""

import multiprocessing
import os
import threading

import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.9": "slow --strength 0.9",
    "fixed-0.6": "fixed --strength 0.6",
}
LABEL = ["gil-contention"]
ALSO = ["preprocessing-bound"]
WHERE = "count_words"
MEASURE = "mean"  # a step waits more or less

variant, strength = work.variant()
TEXT = " ".join("word%d" % (at % 97) for at in range(16_000))


def count_words(text):
    counts = {}
    word = ""
    for letter in text:
        if letter == " ":
            counts[word] = counts.get(word, 0) + 1
            word = ""
        else:
            word += letter
    return counts


def background(stop):
    rest = 0 if strength > 0.8 else 0.006 * (1 - strength) / strength
    while not stop.wait(rest):
        count_words(TEXT)


def step(number):
    return work.model()


if __name__ == "__main__":
    if variant == "slow":
        stop = threading.Event()
        beside = threading.Thread(target=background, args=(stop,))
    else:
        context = multiprocessing.get_context("fork")
        stop = context.Event()
        beside = context.Process(target=background, args=(stop,))
    beside.start()
    work.run(step, {0.4: 220, 0.6: 160, 0.9: 70}[strength] if variant == "slow" else 350)
    stop.set()
    beside.join()
