"""The person's desktop: browsers and notifications."""
