typedef int hnsw_placeholder;
