/*
 * mount.h - getting the tree mounted, and away again.
 */
#ifndef COORDFS_FS_MOUNT_H
#define COORDFS_FS_MOUNT_H

#include "fs/session.h"

/*
 * Mounts fs->o.mountpoint and shakes hands with the kernel. On success fs->se, fs->buf and
 * fs->o.mountpoint (now absolute) are set. On failure nothing is mounted, and `err` says what to
 * do; see fs_open() for the codes.
 */
int mount_open(struct fs *fs, char *err, size_t err_size);
/* Unmounts, lazily if busy. The session is gone. */
void mount_close(struct fs *fs);

#endif
