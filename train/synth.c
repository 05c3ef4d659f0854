#include "train/synth.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/base/rng.h"

#define D 8
#define TASTE_SCALE 1.5
#define FIRST_SECOND 1735689600 // 2025-01-01 00:00:00 UTC
#define SECONDS (90 * 86400)

static const struct {
    const char *name;
    double share; // of users
} cities[] = {{"SH", 0.30}, {"BJ", 0.24}, {"GZ", 0.15}, {"SZ", 0.12},
              {"CD", 0.08}, {"HZ", 0.05}, {"WH", 0.04}, {"XA", 0.02}};
#define N_CITIES (sizeof(cities) / sizeof(cities[0]))

static const struct {
    const char *name;
    double share; // of items
    double price; // base
    const char *noun[4];
} classes[] = {
    {"foods", 0.42, 40, {"Noodle House", "Hot Pot", "Bakery", "Grill"}},
    {"hotels", 0.17, 400, {"Hotel", "Inn", "Hostel", "Guest House"}},
    {"movies", 0.12, 55, {"Cinema", "Film Palace", "Screen", "Picture House"}},
    {"beauty", 0.09, 180, {"Hair Studio", "Nail Bar", "Spa", "Salon"}},
    {"travel", 0.07, 260, {"Day Tour", "Boat Trip", "Museum", "Hill Park"}},
    {"fitness", 0.05, 120, {"Gym", "Yoga Room", "Pool", "Climbing Hall"}},
    {"karaoke", 0.04, 150, {"Karaoke", "Song Bar", "Music Box", "Voice Club"}},
    {"flowers", 0.025, 90, {"Florist", "Bouquet Shop", "Garden", "Petals"}},
    {"education", 0.01, 300, {"Language School", "Piano Class", "Art Studio", "Code Camp"}},
    {"pets", 0.005, 110, {"Pet Clinic", "Dog Salon", "Cat Cafe", "Aquarium"}},
};
#define N_CLASSES (sizeof(classes) / sizeof(classes[0]))

struct person {
    uint8_t city, gender;
    double p[D];
};

struct thing {
    uint8_t class;
    double price, popularity;
    double q[D];
};

struct world {
    struct person *user;
    struct thing *item;
};

// ----------------------------------------------------------------------------------------------------------- latent

static void draw_normal(struct rng *rng, double v[D])
{
    for (int i = 0; i < D; i++)
        v[i] = rng_normal(rng);
}

static uint8_t draw_city(struct rng *rng)
{
    double x = rng_unit(rng);
    uint8_t c = 0;
    for (; c + 1u < N_CITIES && x >= cities[c].share; c++)
        x -= cities[c].share;
    return c;
}

/* Items are dealt to the classes by share, at least one each, so that even pets exist in a small catalogue. */
static uint8_t class_of(uint32_t item, uint32_t n_items)
{
    if (item < N_CLASSES)
        return (uint8_t)item;
    double x = (double)(item - N_CLASSES) / (double)(n_items - N_CLASSES);
    uint8_t k = 0;
    for (; k + 1u < N_CLASSES && x >= classes[k].share; k++)
        x -= classes[k].share;
    return k;
}

static void draw_users(struct world *w, uint32_t n, struct rng *rng)
{
    double city[N_CITIES][D], gender[2][D], own[D];
    for (size_t c = 0; c < N_CITIES; c++)
        draw_normal(rng, city[c]);
    for (size_t g = 0; g < 2; g++)
        draw_normal(rng, gender[g]);
    for (uint32_t u = 0; u < n; u++) {
        struct person *x = &w->user[u];
        x->city = draw_city(rng);
        x->gender = rng_below(rng, 2) != 0;
        draw_normal(rng, own);
        for (int i = 0; i < D; i++)
            x->p[i] = 0.6 * city[x->city][i] + 0.4 * gender[x->gender][i] + own[i];
    }
}

static void draw_items(struct world *w, uint32_t n, struct rng *rng)
{
    double class[N_CLASSES][D], own[D];
    for (size_t k = 0; k < N_CLASSES; k++)
        draw_normal(rng, class[k]);
    for (uint32_t i = 0; i < n; i++) {
        struct thing *x = &w->item[i];
        double z = rng_normal(rng);
        x->class = class_of(i, n);
        x->price = classes[x->class].price * exp(0.5 * z);
        x->popularity = rng_normal(rng);
        draw_normal(rng, own);
        for (int j = 0; j < D; j++)
            x->q[j] = 0.7 * class[x->class][j] + 0.7 * own[j];
        x->q[0] += 0.5 * z;
    }
}

// ---------------------------------------------------------------------------------------------------------- choices

/* Interactions of each user: the least for all, the rest in proportion to exp(N(0, 0.7)), running sums rounded so that
 * the total is exact; what a user cannot take (a quarter of the items at most) goes to the next. */
static bool draw_activity(uint32_t *count, const struct synth_params *p, struct rng *rng, struct err *err)
{
    double *weight = mem_array(p->n_users, sizeof(*weight), err), sum = 0, run = 0;
    if (!weight)
        return false;
    for (uint32_t u = 0; u < p->n_users; u++)
        sum += weight[u] = exp(0.7 * rng_normal(rng));
    uint64_t rest = p->n_interactions - (uint64_t)SYNTH_MIN_EACH * p->n_users, given = 0;
    uint32_t most = p->n_items / 4;
    for (uint32_t u = 0; u < p->n_users; u++) {
        run += weight[u];
        uint64_t due = u + 1 == p->n_users ? rest : (uint64_t)((double)rest * run / sum);
        uint64_t more = due - given;
        if (more > most - SYNTH_MIN_EACH)
            more = most - SYNTH_MIN_EACH;
        count[u] = SYNTH_MIN_EACH + (uint32_t)more;
        given += more;
    }
    for (uint32_t u = 0; given < rest; u = (u + 1) % p->n_users) // what the last users could not take
        if (count[u] < most) {
            count[u]++;
            given++;
        }
    free(weight);
    return true;
}

struct choice {
    double key; // score + Gumbel noise
    uint32_t item;
    int64_t time;
};

static int by_key(const void *pa, const void *pb)
{
    const struct choice *a = pa, *b = pb;
    if (a->key != b->key)
        return a->key > b->key ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

static int by_time(const void *pa, const void *pb)
{
    const struct choice *a = pa, *b = pb;
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

/* The n largest of score + Gumbel noise are n draws without replacement from softmax(score). */
static void choose(const struct world *w, const struct person *u, uint32_t n_items, uint32_t n, struct choice *c,
                   struct rng *rng)
{
    for (uint32_t i = 0; i < n_items; i++) {
        double dot = 0, x = rng_unit(rng);
        for (int j = 0; j < D; j++)
            dot += u->p[j] * w->item[i].q[j];
        double score = TASTE_SCALE * dot / sqrt(D) + w->item[i].popularity;
        c[i] = (struct choice){.item = i, .key = score - log(-log(x > 0 ? x : 0x1p-53))};
    }
    qsort(c, n_items, sizeof(*c), by_key);
    for (uint32_t i = 0; i < n; i++)
        c[i].time = FIRST_SECOND + rng_below(rng, SECONDS);
    qsort(c, n, sizeof(*c), by_time);
}

// ------------------------------------------------------------------------------------------------------------- files

static FILE *create(const char *dir, const char *name, struct err *err)
{
    char path[PATH_MAX];
    if (!fio_join(path, dir, name, err))
        return NULL;
    FILE *f = fopen(path, "we");
    if (!f)
        err_errno(err, "%s", path);
    return f;
}

static bool finish(FILE *f, const char *dir, const char *name, struct err *err)
{
    bool ok = !ferror(f);
    ok = fclose(f) == 0 && ok;
    return ok || err_errno(err, "%s/%s: write", dir, name);
}

static bool write_users(const char *dir, const struct world *w, uint32_t n, struct err *err)
{
    FILE *f = create(dir, "users.csv", err);
    if (!f)
        return false;
    fprintf(f, "user_id,city,gender\n");
    for (uint32_t u = 0; u < n; u++)
        fprintf(f, "%u,%s,%s\n", u + 1, cities[w->user[u].city].name, w->user[u].gender ? "male" : "female");
    return finish(f, dir, "users.csv", err);
}

/* Titles are for people who read an answer; some have a quote or a comma, as real ones do. */
static void write_title(FILE *f, uint32_t i, uint8_t class)
{
    static const char *const adjective[] = {"Golden", "Quiet", "Red",  "River", "Old",   "Sunny",  "Little", "Grand",
                                            "Lucky",  "Blue",  "Jade", "North", "Happy", "Bamboo", "Star",   "Silver"};
    const char *noun = classes[class].noun[i / 16 % 4], *first = adjective[i % 16];
    if (i % 50 == 7)
        fprintf(f, "\"The \"\"%s\"\" %s, No. %u\"", first, noun, i + 1);
    else
        fprintf(f, "%s %s %u", first, noun, i + 1);
}

static bool write_items(const char *dir, const struct world *w, uint32_t n, struct err *err)
{
    FILE *f = create(dir, "items.csv", err);
    if (!f)
        return false;
    fprintf(f, "item_id,title,price,category\n");
    for (uint32_t i = 0; i < n; i++) {
        fprintf(f, "%u,", i + 1);
        write_title(f, i, w->item[i].class);
        fprintf(f, ",%.2f,%s\n", w->item[i].price, classes[w->item[i].class].name);
    }
    return finish(f, dir, "items.csv", err);
}

static bool write_interactions(const char *dir, const struct world *w, const struct synth_params *p, struct rng *rng,
                               struct err *err)
{
    uint32_t *count = mem_array(p->n_users, sizeof(*count), err);
    struct choice *c = mem_array(p->n_items, sizeof(*c), err);
    FILE *f = NULL;
    bool ok = count && c && draw_activity(count, p, rng, err) && (f = create(dir, "interactions.csv", err));
    if (ok) {
        fprintf(f, "user_id,item_id,timestamp\n");
        for (uint32_t u = 0; u < p->n_users; u++) {
            choose(w, &w->user[u], p->n_items, count[u], c, rng);
            for (uint32_t i = 0; i < count[u]; i++)
                fprintf(f, "%u,%u,%lld\n", u + 1, c[i].item + 1, (long long)c[i].time);
        }
        ok = finish(f, dir, "interactions.csv", err);
    }
    free(count);
    free(c);
    return ok;
}

static bool check(const struct synth_params *p, struct err *err)
{
    if (p->n_users < 1 || p->n_items < 4 * SYNTH_MIN_EACH)
        return err_set(err, ERR_ARG, "%u users and %u items, want at least 1 and %d", p->n_users, p->n_items,
                       4 * SYNTH_MIN_EACH);
    uint64_t least = (uint64_t)SYNTH_MIN_EACH * p->n_users, most = (uint64_t)(p->n_items / 4) * p->n_users;
    if (p->n_interactions < least || p->n_interactions > most)
        return err_set(
            err, ERR_ARG, "%llu interactions, want %llu to %llu: %d a user at least, a quarter of the items at most",
            (unsigned long long)p->n_interactions, (unsigned long long)least, (unsigned long long)most, SYNTH_MIN_EACH);
    return true;
}

bool synth_write(const char *dir, const struct synth_params *p, struct err *err)
{
    struct world w = {0};
    struct rng rng;
    if (!check(p, err) || !fio_mkdirs(dir, err))
        return false;
    rng_init(&rng, p->seed);
    w.user = mem_array(p->n_users, sizeof(*w.user), err);
    w.item = mem_array(p->n_items, sizeof(*w.item), err);
    bool ok = w.user && w.item;
    if (ok) {
        draw_users(&w, p->n_users, &rng);
        draw_items(&w, p->n_items, &rng);
        ok = write_users(dir, &w, p->n_users, err) && write_items(dir, &w, p->n_items, err) &&
             write_interactions(dir, &w, p, &rng, err);
    }
    free(w.user);
    free(w.item);
    return ok;
}
