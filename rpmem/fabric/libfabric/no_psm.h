/*
 * The content of a stand-in for a library of absent hardware: every function that libfabric's
 * provider may call says "no device". See startup.py for the reason. None of them touches its
 * arguments, so that all can have the same type.
 */
#ifndef RPMEM_NO_PSM_H
#define RPMEM_NO_PSM_H

#define NO_DEVICE 21 /* PSM_EP_NO_DEVICE, PSM2_EP_NO_DEVICE */
#define ABSENT(name) \
	__attribute__((visibility("default"))) int name(void); \
	int name(void) { return NO_DEVICE; }
#define ABSENT_POINTER(name) \
	__attribute__((visibility("default"))) void *name(void); \
	void *name(void) { return (void *)0; }
#define ERROR_TEXT(name) \
	__attribute__((visibility("default"))) const char *name(int error); \
	const char *name(int error) { (void)error; return "no such device"; }

#endif
