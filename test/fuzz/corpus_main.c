/* corpus_main.c - plays a corpus back through one fuzz target, for builds without libFuzzer.
 *
 * Takes directories; each regular file in them is one input. An input that makes the target crash or trip a
 * sanitizer ends the program, so its name is printed first. An empty or missing directory is an error: a
 * corpus that nobody plays back would look like one that passes. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int play_file(const char *path, size_t size)
{
	FILE *f = fopen(path, "rb");
	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	/* Exactly as long as the input, so that ASan sees a read past its end. */
	uint8_t *data = malloc(size ? size : 1);
	size_t n = data ? fread(data, 1, size, f) : 0;
	fclose(f);
	if (!data || n != size) {
		fprintf(stderr, "%s: could not be read whole\n", path);
		free(data);
		return -1;
	}
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

/* The number of inputs played, or -1. */
static int play_directory(const char *directory)
{
	DIR *d = opendir(directory);
	if (!d) {
		fprintf(stderr, "%s: %s\n", directory, strerror(errno));
		return -1;
	}
	int played = 0;
	const struct dirent *entry;
	while (played >= 0 && (entry = readdir(d))) {
		char path[4096];
		struct stat st;
		int n = snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (n < 0 || (size_t)n >= sizeof(path) || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		played = play_file(path, (size_t)st.st_size) < 0 ? -1 : played + 1;
	}
	closedir(d);
	return played;
}

int main(int argc, char **argv)
{
	int total = 0;
	for (int i = 1; i < argc; i++) {
		int played = play_directory(argv[i]);
		if (played < 0)
			return 1;
		total += played;
	}
	fprintf(stderr, "%d inputs\n", total);
	return total > 0 ? 0 : 1;
}
