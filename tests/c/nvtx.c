// A client of NVTX as a program has it, less the header: it loads the library that NVTX_INJECTION64_PATH names and asks it
// for the functions of CORE and CORE2. Built as a library (-DCLIENT) it is a second client of the same process.
//
//   nvtx CASE [ARGUMENT]      what is done; prints facts the test compares, times in ns of CLOCK_MONOTONIC
//   ABI: NVIDIA/NVTX, nvtxDetail/nvtxTypes.h, nvtxInit.h, nvToolsExt.h of version 3
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

typedef void (*function)(void);
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    union { uint64_t u64; int64_t i64; double f64; uint32_t u32; int32_t i32; float f32; } payload;
    int32_t message_type, reserved2;
    const void *message;
} event;

enum { MARK_EX = 1, MARK_A, MARK_W, START_EX, START_A, START_W, END, PUSH_EX, PUSH_A, PUSH_W, POP, CATEGORY_A, CATEGORY_W,
       THREAD_A, THREAD_W };
enum { D_MARK_EX = 1, D_START_EX, D_END, D_PUSH_EX, D_POP, D_CREATE, D_DESTROY, D_CATEGORY_A, D_CATEGORY_W, D_STRING_A,
       D_STRING_W, DOMAIN_A, DOMAIN_W, DOMAIN_DESTROY, INITIALIZE };

static function core[16], core2[16];
static function *core_slots[17], *core2_slots[17];

static int module_table(uint32_t module, function ***table, uint32_t *size) {
    if (module != 1 && module != 5) return 0;
    *table = module == 1 ? core_slots : core2_slots;
    *size = 16;
    return 1;
}
static struct { size_t size; int (*table)(uint32_t, function ***, uint32_t *); } exports = {sizeof exports, module_table};
static const void *get_export_table(uint32_t id) { return id == 1 ? &exports : NULL; }

static void *library;
// 1: there is a tool, and every slot was filled.
static int initialize(void) {
    for (int i = 1; i < 16; i++) core_slots[i] = &core[i], core2_slots[i] = &core2[i];
    const char *path = getenv("NVTX_INJECTION64_PATH");
    if (!path || !(library = dlopen(path, RTLD_LAZY))) return 0;
    int (*init)(void *) = (int (*)(void *))dlsym(library, "InitializeInjectionNvtx2");
    if (!init || init((void *)get_export_table) != 1) return 0;
    for (int i = 1; i < 16; i++) if (!core[i] || !core2[i]) return 0;
    return 1;
}

#define CALL(type, slot, ...) ((type)(slot))(__VA_ARGS__)
typedef int (*text_int)(const void *);
typedef int (*int_void)(void);
typedef void (*text_void)(const void *);
typedef uint64_t (*text_id)(const void *);
typedef void (*id_void)(uint64_t);
typedef int (*domain_event)(void *, const void *);
typedef uint64_t (*domain_start)(void *, const void *);
typedef void (*domain_id)(void *, uint64_t);
typedef int (*domain_int)(void *);
typedef void *(*text_domain)(const void *);
typedef void *(*domain_string)(void *, const void *);
typedef void (*category_name)(uint32_t, const void *);
typedef void (*domain_category)(void *, uint32_t, const void *);

int push(const char *text) { return core[PUSH_A] ? CALL(text_int, core[PUSH_A], text) : -2; }
int pop(void) { return core[POP] ? CALL(int_void, core[POP]) : -2; }
void *domain(const char *name) { return core2[DOMAIN_A] == NULL ? NULL : CALL(text_domain, core2[DOMAIN_A], name); }
void *string(void *d, const char *text) { return core2[D_STRING_A] == NULL ? NULL : CALL(domain_string, core2[D_STRING_A], d, text); }
static event registered(void *handle) {
    return (event){.version = 2, .size = sizeof(event), .message_type = 3, .message = handle};
}
static int domain_push(void *d, const event *e) { return core2[D_PUSH_EX] ? CALL(domain_event, core2[D_PUSH_EX], d, e) : -2; }
static int domain_pop(void *d) { return core2[D_POP] ? CALL(domain_int, core2[D_POP], d) : -2; }
int client(void) { return initialize(); }

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}
static uint64_t used(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}
static void spin(uint64_t ns) { for (uint64_t until = now() + ns; now() < until;) {} }

#ifndef CLIENT
static void everything(void) {
    void *d = domain("engine"), *same = CALL(text_domain, core2[DOMAIN_W], L"engine");
    printf("same domain %d\n", d == same && d != NULL && d != domain("other"));
    CALL(category_name, core[CATEGORY_A], 1, "one");
    CALL(category_name, core[CATEGORY_W], 2, L"größe");
    CALL(domain_category, core2[D_CATEGORY_A], d, 1, "prefill");
    CALL(domain_category, core2[D_CATEGORY_W], d, 2, L"décodage");
    printf("levels %d", push("ascii"));
    printf(" %d", CALL(text_int, core[PUSH_W], L"wide größe 🦀"));
    event e = {.version = 2, .size = sizeof e, .category = 2, .color_type = 1, .color = 0xff00ff7f, .payload_type = 3,
               .payload.f64 = 2.5, .message_type = 2, .message = L"with attributes"};
    printf(" %d", CALL(text_int, core[PUSH_EX], &e));
    printf(" %d", pop());
    printf(" %d", pop());
    printf(" %d", pop());
    printf(" %d\n", pop());
    event r = registered(string(d, "registered"));
    r.category = 1;
    printf("domain levels %d", domain_push(d, &r));
    printf(" %d", domain_push(d, &r));
    printf(" %d", domain_pop(d));
    printf(" %d", domain_pop(d));
    printf(" %d\n", domain_pop(d));
    printf("same string %d\n", string(d, "registered") == r.message && CALL(domain_string, core2[D_STRING_W], d, L"registered") == r.message);
    for (int type = 1; type <= 6; type++) {
        event p = {.version = 2, .size = sizeof p, .payload_type = type, .message_type = 1, .message = "payload"};
        switch (type) {
        case 1: p.payload.u64 = 1ull << 40; break;
        case 2: p.payload.i64 = -2; break;
        case 3: p.payload.f64 = 0.25; break;
        case 4: p.payload.u32 = 4000000000u; break;
        case 5: p.payload.i32 = -5; break;
        case 6: p.payload.f32 = 0.5f; break;
        }
        CALL(text_void, core[MARK_EX], &p);
    }
    event none = {.version = 2, .size = 24};
    CALL(text_void, core[MARK_EX], &none);
    CALL(text_void, core[MARK_A], "mark a");
    CALL(text_void, core[MARK_W], L"mark w");
    CALL(domain_event, core2[D_MARK_EX], d, &r);
    uint64_t a = CALL(text_id, core[START_A], "start a"), w = CALL(text_id, core[START_W], L"start w");
    uint64_t x = CALL(text_id, core[START_EX], &e), y = CALL(domain_start, core2[D_START_EX], d, &r);
    printf("unique %d\n", a && a != w && w != x && x != y && a != y);
    CALL(id_void, core[END], a), CALL(domain_id, core2[D_END], NULL, w), CALL(id_void, core[END], x);
    CALL(domain_id, core2[D_END], d, y);
    CALL(id_void, core[END], 12345678);
    // a domain pushes, another one too, and they pop in the same order
    void *other = domain("other");
    event c = registered(string(other, "crossing"));
    domain_push(d, &r), domain_push(other, &c), domain_pop(d), domain_pop(other);
    CALL(category_name, core[THREAD_A], syscall(SYS_gettid), "the main one");
    void *resource = CALL(domain_string, core2[D_CREATE], d, &e);
    CALL(text_void, core2[D_DESTROY], resource);
    CALL(text_void, core2[DOMAIN_DESTROY], other);
    CALL(text_void, core2[INITIALIZE], NULL);
}

static void *work(void *arg) {
    char name[32];
    snprintf(name, sizeof name, "thread %ld", (long)arg);
    CALL(category_name, core[THREAD_W], syscall(SYS_gettid), L"worker größe");
    for (int i = 0; i < 1000; i++) push(name), push("inner"), pop(), pop();
    return NULL;
}
static uint64_t ranges[1000];
static void *ends(void *arg) {
    for (int i = 0; i < 1000; i++) CALL(id_void, core[END], ranges[i]);
    return arg;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "";
    printf("tool %d\n", initialize());
    if (!core[POP] && strcmp(what, "bench")) return 0;
    if (!strcmp(what, "everything")) {
        everything();
    } else if (!strcmp(what, "two")) {
        void *other = dlopen(argument, RTLD_NOW);
        int (*client)(void) = (int (*)(void))dlsym(other, "client");
        int (*other_push)(const char *) = (int (*)(const char *))dlsym(other, "push");
        int (*other_pop)(void) = (int (*)(void))dlsym(other, "pop");
        void *(*other_domain)(const char *) = (void *(*)(const char *))dlsym(other, "domain");
        void *(*other_string)(void *, const char *) = (void *(*)(void *, const char *))dlsym(other, "string");
        printf("client %d", client());
        printf(" domain %d", domain("shared") == other_domain("shared"));
        printf(" string %d\n", string(NULL, "text") == other_string(NULL, "text"));
        printf("levels %d", push("first"));
        printf(" %d", other_push("second"));
        printf(" %d", pop());
        printf(" %d\n", other_pop());
        dlclose(other), dlclose(library);
        push("after dlclose"), pop();
    } else if (!strcmp(what, "threads")) {
        pthread_t threads[4], ender;
        for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, (void *)i);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < 1000; i++) ranges[i] = CALL(text_id, core[START_A], "across");
        pthread_create(&ender, NULL, ends, NULL);
        pthread_join(ender, NULL);
    } else if (!strcmp(what, "times")) {
        for (int i = 0; i < 50; i++) {
            uint64_t before = now();
            push("timed");
            uint64_t begun = now();
            spin(100000);
            uint64_t end = now();
            pop();
            printf("%lu %lu %lu %lu\n", before, begun, end, now());
        }
    } else if (!strcmp(what, "names")) {
        int count = atoi(argument);
        void *d = domain("many");
        char name[64];
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "name %d", i);
            push(name);
            snprintf(name, sizeof name, "string %d", i);
            event e = registered(string(d, name));
            e.payload_type = 1, e.payload.u64 = i;
            domain_push(d, &e);
            domain_pop(d), pop();
        }
    } else if (!strcmp(what, "fork")) {
        push("parent");
        CALL(category_name, core[CATEGORY_A], 7, "seven");
        event e = registered(string(domain("engine"), "child"));
        e.category = 7;
        pid_t child = fork();
        if (!child) {
            e.message_type = 3;
            CALL(text_int, core[PUSH_EX], &e);
            domain_push(domain("engine"), &e), domain_pop(domain("engine"));
            pop();
            pop();
            _exit(0);
        }
        waitpid(child, NULL, 0);
        pop();
    } else if (!strcmp(what, "open") || !strcmp(what, "kill")) {
        CALL(text_id, core[START_A], "started");
        push("pushed"), push("inner"), pop();
        spin(2000000);
        CALL(text_void, core[MARK_A], "last");
        fflush(stdout);
        if (!strcmp(what, "kill")) kill(getpid(), 9);
        _exit(0);
    } else if (!strcmp(what, "slow")) { // events for as long as it says, in ms
        uint64_t until = now() + strtoull(argument, NULL, 10) * 1000000;
        long pairs = 0;
        push("whole");
        while (now() < until) push("step"), usleep(1000), pop(), pairs++;
        pop();
        printf("%ld\n", pairs);
    } else if (!strcmp(what, "bench")) { // ns of CPU time a pair
        int rounds = 41, pairs = 20000;
        void *d = domain("bench");
        event e = registered(string(d, "a registered string"));
        for (int r = 0; r < rounds; r++) {
            uint64_t t0 = used();
            for (int i = 0; i < pairs; i++) domain_push(d, &e), domain_pop(d);
            uint64_t t1 = used();
            for (int i = 0; i < pairs; i++) push("an ascii text of 32 characters !"), pop();
            uint64_t t2 = used();
            printf("%f %f\n", (double)(t1 - t0) / pairs, (double)(t2 - t1) / pairs);
            usleep(20000); // the recorder takes what there is
        }
    }
    return 0;
}
#endif
