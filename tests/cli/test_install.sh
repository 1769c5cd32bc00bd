#!/bin/sh
# What is installed suffices to build against: the example, by pkg-config and by CMake, static and
# shared. Usage: test_install.sh PROGRAM SOURCE-FOLDER BUILD-FOLDER
source=$2 build=$3
. "$(dirname "$0")/common.sh"

# ./dev build makes the target marco_installed: of what is installed, all that is built.
if grep -q '^CMAKE_GENERATOR:INTERNAL=Ninja$' "$build/CMakeCache.txt"; then
    works ninja -C "$build" -t targets all
    sed -n 's/: [A-Za-z_]*$//p' out | sort >built
    find "$build" -name cmake_install.cmake -exec cat {} + |
        grep -o "\"$build/[^\"]*\"" | tr -d '"' | sed "s,^$build/,," | sort -u |
        comm -12 - built | grep -vx 'libmarco\.so\.[0-9]*' >wanted # made with libmarco.so
    check 'the program, two libraries, man pages' [ "$(grep -c . wanted)" -ge 10 ]
    works ninja -C "$build" -t graph marco_installed
    sed -n 's/.*\[label="\([^"]*\)"\]$/\1/p' out | sort -u | comm -13 - wanted >forgotten
    check "./dev build makes all of it: $(tr '\n' ' ' <forgotten)" [ ! -s forgotten ]
fi

root=$scratch/root
works cmake --install "$build" --prefix "$root"
PKG_CONFIG_PATH=$(dirname "$(find "$root" -name marco.pc)")
export PKG_CONFIG_PATH
library=$(dirname "$PKG_CONFIG_PATH")
flags() {
    pkg-config "$@" marco
}

check 'a program' [ -x "$root/bin/marco" ]
check 'man pages' [ -s "$root/share/man/man1/marco-upcycle.1" ]
check 'only the public names are exported' sh -c \
    '! nm -D --defined-only "$1"/libmarco.so | grep -v " marco_" | grep " [A-Z] "' - "$library"
check 'the example has at most 40 lines' [ "$(wc -l <"$source/examples/complete.c")" -le 40 ]
works "$root/bin/marco" synth tiny-qwen3moe model.gguf

# shellcheck disable=SC2046 # flags are words
{
    works cc "$source/examples/complete.c" $(flags --cflags --libs) -o shared
    works env LD_LIBRARY_PATH="$library" ./shared model.gguf hello
    cp out reply
    check 'a reply' [ "$(wc -c <reply)" -gt 1 ]
    check 'the shared library is in use' sh -c \
        'LD_LIBRARY_PATH="$1" ldd shared | grep -q "libmarco.so.0 => $1"' - "$library"
    works cc "$source/examples/complete.c" $(flags --cflags) "$library/libmarco.a" \
        $(flags --static --libs-only-l | sed 's/-lmarco//') -o static
    works ./static model.gguf hello
    check 'the same reply' cmp reply out
}
refuses_model() {
    ./static nowhere.gguf hello >out 2>err && return 1
    grep -q 'nowhere\.gguf' out
}
check 'an error that names the file' refuses_model

mkdir project
cat >project/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES C)
find_package(marco 0.1 REQUIRED)
foreach(library marco marco_static)
  add_executable(by_${library} complete.c)
  target_link_libraries(by_${library} PRIVATE marco::${library})
endforeach()
CMAKE
cp "$source/examples/complete.c" project/
# What this tree was built with is there; make may not be.
generator=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$build/CMakeCache.txt")
works cmake -G "$generator" -S project -B project/build -DCMAKE_PREFIX_PATH="$root"
works cmake --build project/build
for library in marco marco_static; do
    works project/build/by_$library model.gguf hello
    check 'the same reply' cmp reply out
done

if command -v c++ >/dev/null; then
    echo '#include <marco/marco.h>
int main() { return marco_status_text(MARCO_OK) == nullptr; }' >cxx.cc
    # shellcheck disable=SC2046 # flags are words
    works c++ -std=c++17 -Wall -Wextra -Werror cxx.cc $(flags --cflags --libs) -o cxx
    works env LD_LIBRARY_PATH="$(dirname "$PKG_CONFIG_PATH")" ./cxx
fi
finish
