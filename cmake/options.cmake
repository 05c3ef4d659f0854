# Compiler options that every target of ours uses, as one interface target, and the libraries we stand on.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

add_library(duet_options INTERFACE)
target_compile_definitions(duet_options INTERFACE _GNU_SOURCE DUET_VERSION="${PROJECT_VERSION}")
target_compile_options(duet_options INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wvla -fno-math-errno -fno-strict-aliasing
    -fstack-protector-strong $<$<BOOL:${DUET_WERROR}>:-Werror>)
target_include_directories(duet_options INTERFACE ${PROJECT_SOURCE_DIR})
if(DUET_SANITIZE)
    target_compile_options(duet_options INTERFACE -fsanitize=${DUET_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
        -UNDEBUG) # asserts hold there, whatever the build type says
    target_link_options(duet_options INTERFACE -fsanitize=${DUET_SANITIZE})
    target_compile_definitions(duet_options INTERFACE DUET_SANITIZED)
endif()

pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(BLAS REQUIRED IMPORTED_TARGET openblas)
pkg_check_modules(MHD REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
if(DUET_KAFKA AND NOT DUET_SANITIZE MATCHES "thread") # its threads come from thrd_create, which TSan does not know: they crash
    pkg_check_modules(RDKAFKA IMPORTED_TARGET rdkafka) # optional: exposures to Kafka
endif()
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)

# Training by several processes: AUTO = where Open MPI's headers are. Its own threads and memory are nothing for TSan to look at.
if(DUET_MPI STREQUAL "ON")
    pkg_check_modules(OMPI REQUIRED IMPORTED_TARGET ompi-c)
elseif(DUET_MPI STREQUAL "AUTO" AND NOT DUET_SANITIZE MATCHES "thread")
    pkg_check_modules(OMPI IMPORTED_TARGET ompi-c)
endif()
