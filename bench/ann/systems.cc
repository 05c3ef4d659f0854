// systems.cc - the table of what is measured, and how graphs are kept between runs.
#include <cstdio>

#include "bench/ann/systems.h"

build_cost load_or_build(const job &j, const std::string &what, unsigned threads,
                         const std::function<void(const std::string &)> &load, const std::function<void()> &build,
                         const std::function<void(const std::string &)> &save)
{
    build_cost c;
    c.threads = threads;
    std::string path = j.cache(what), note = path + ".build";
    if (there(path)) {
        load(path);
        if (std::FILE *f = std::fopen(note.c_str(), "r")) {
            if (std::fscanf(f, "%lf CPU s, %lf s, %u threads", &c.cpu, &c.wall, &c.threads) != 3)
                die("cannot read " + note);
            std::fclose(f);
        }
        return c;
    }
    double cpu = process_cpu(), t = wall();
    build();
    c.cpu = process_cpu() - cpu;
    c.wall = wall() - t;
    std::fprintf(stderr, "built %s: %.1f CPU s, %.1f s, %u threads\n", what.c_str(), c.cpu, c.wall, c.threads);
    save(path + ".part"); // a run that is cut off leaves no half graph under the name
    if (std::rename((path + ".part").c_str(), path.c_str()) != 0)
        die("cannot rename " + path + ".part");
    std::FILE *f = std::fopen(note.c_str(), "w");
    if (!f || std::fprintf(f, "%.3f CPU s, %.3f s, %u threads\n", c.cpu, c.wall, c.threads) < 0 || std::fclose(f) != 0)
        die("cannot write " + note);
    return c;
}
