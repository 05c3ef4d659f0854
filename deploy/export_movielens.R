# Writes the MovieLens ratings that Debian ships (package r-cran-dslabs) as ratings.csv and movies.csv, the layout of
# GroupLens' ml-latest archives: missing titles and genres are empty fields, quotes are doubled (RFC 4180).
# Usage: Rscript export_movielens.R FOLDER
folder <- commandArgs(trailingOnly = TRUE)[1]
suppressPackageStartupMessages(library(dslabs))
m <- movielens
ratings <- data.frame(userId = m$userId, movieId = m$movieId, rating = m$rating, timestamp = m$timestamp)
first <- m[!duplicated(m$movieId), ]
first <- first[order(first$movieId), ]
title <- as.character(first$title)
title <- ifelse(is.na(title) | is.na(first$year), title, sprintf("%s (%d)", title, as.integer(first$year)))
movies <- data.frame(movieId = first$movieId, title = title, genres = as.character(first$genres))
save <- function(x, name) write.csv(x, file.path(folder, name), row.names = FALSE, na = "", fileEncoding = "UTF-8")
save(ratings, "ratings.csv")
save(movies, "movies.csv")
