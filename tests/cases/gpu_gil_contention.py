"""A thread that runs Python holds the GIL while another wants to launch kernels.

Injected: a thread that counts words in a loop. Each call of the driver gives the GIL back and waits for it again. Right, because the
device is idle for as long as the launching thread waits for the GIL; the twin counts the same words in a process of its own.
"""

import multiprocessing
import threading

import device
import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.9": "slow --strength 0.9",
    "fixed": "fixed --strength 0.5",
}
LABEL = ["gil-contention"]
ALSO = ["launch-bound", "preprocessing-bound"]
WHERE = "count_words"
MEASURE = "mean"
NEEDS = "gpu"

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
    while not stop.wait(0 if strength > 0.8 else 0.005):
        count_words(TEXT)


def step(number):
    gpu.layers(12)
    gpu.wait()


if __name__ == "__main__":
    stop = multiprocessing.get_context("fork").Event() if variant != "slow" else threading.Event()
    if variant == "slow":
        beside = threading.Thread(target=background, args=(stop,))
    else:
        beside = multiprocessing.get_context("fork").Process(target=background, args=(stop,))
    beside.start()
    gpu = device.Device(250)
    work.run(step, {0.5: 120, 0.9: 60}[strength] if variant == "slow" else 300)
    stop.set()
    beside.join()
